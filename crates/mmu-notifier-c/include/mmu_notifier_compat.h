/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What kernel-style code takes for granted. Each only where nobody has defined it: define
 * MMUN_HAVE_HLIST_NODE, MMUN_HAVE_LLIST_NODE, MMUN_HAVE_RCU_HEAD or MMUN_HAVE_PTE_T before the first include
 * if types of these names (with two, one and two words, and one word) are there already.
 */
#ifndef MMU_NOTIFIER_COMPAT_H
#define MMU_NOTIFIER_COMPAT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#ifndef MMUN_HAVE_HLIST_NODE
#define MMUN_HAVE_HLIST_NODE
struct hlist_node {
	struct hlist_node *next, **pprev;
};
#ifndef INIT_HLIST_NODE
#define INIT_HLIST_NODE INIT_HLIST_NODE
static inline void INIT_HLIST_NODE(struct hlist_node *node)
{
	node->next = NULL;
	node->pprev = NULL;
}
#endif
#ifndef hlist_unhashed
#define hlist_unhashed hlist_unhashed
static inline int hlist_unhashed(const struct hlist_node *node)
{
	return !__atomic_load_n(&node->pprev, __ATOMIC_RELAXED);
}
#endif
#endif

#ifndef MMUN_HAVE_LLIST_NODE
#define MMUN_HAVE_LLIST_NODE
struct llist_node {
	struct llist_node *next;
};
#endif

#ifndef MMUN_HAVE_RCU_HEAD
#define MMUN_HAVE_RCU_HEAD
struct rcu_head {
	struct rcu_head *next;
	void (*func)(struct rcu_head *head);
};
#endif

#ifndef MMUN_HAVE_PTE_T
#define MMUN_HAVE_PTE_T
struct mmun_pte {
	unsigned long pte;
};
typedef struct mmun_pte pte_t;
#endif

#ifndef container_of
#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))
#endif
#ifndef READ_ONCE
#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))
#endif
#ifndef WRITE_ONCE
#define WRITE_ONCE(x, value) (*(volatile __typeof__(x) *)&(x) = (value))
#endif
#ifndef likely
#define likely(x) __builtin_expect(!!(x), 1)
#endif
#ifndef unlikely
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

#ifndef MAX_ERRNO
#define MAX_ERRNO 4095
#endif
#ifndef IS_ERR_VALUE
#define IS_ERR_VALUE(x) ((unsigned long)(x) >= (unsigned long)-MAX_ERRNO)
#endif
#ifndef ERR_PTR
#define ERR_PTR ERR_PTR
static inline void *ERR_PTR(long error)
{
	return (void *)error;
}
#endif
#ifndef PTR_ERR
#define PTR_ERR PTR_ERR
static inline long PTR_ERR(const void *pointer)
{
	return (long)pointer;
}
#endif
#ifndef IS_ERR
#define IS_ERR IS_ERR
static inline bool IS_ERR(const void *pointer)
{
	return IS_ERR_VALUE(pointer);
}
#endif
#ifndef IS_ERR_OR_NULL
#define IS_ERR_OR_NULL(pointer) (!(pointer) || IS_ERR(pointer))
#endif

#endif
