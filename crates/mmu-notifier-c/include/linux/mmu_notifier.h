/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* For code that includes the kernel's path: put the folder above this one among the include paths. */
#include "../mmu_notifier.h"
