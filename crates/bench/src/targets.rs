//! The targets: what the figure of a row is to stay at or below. What the figure is says
//! [`Unit`](crate::unit::Unit).

/// Row, n, and the largest figure.
type Target = (&'static str, u64, f64);

#[rustfmt::skip]
const TARGETS: &[Target] = &[
    ("invalidate/no-subscriber", 0, 1.15),

    ("interval/invalidate-miss", 1, 0.5),
    ("interval/invalidate-miss", 10, 0.4),
    ("interval/invalidate-miss", 100, 0.35),
    ("interval/invalidate-miss", 1_000, 0.35),
    ("interval/invalidate-miss", 10_000, 0.25),
    ("interval/invalidate-miss", 100_000, 0.2),
    ("interval/invalidate-miss", 1_000_000, 0.15),

    ("interval/invalidate-1-hit", 1, 0.35),
    ("interval/invalidate-1-hit", 10, 0.3),
    ("interval/invalidate-1-hit", 100, 0.3),
    ("interval/invalidate-1-hit", 1_000, 0.3),
    ("interval/invalidate-1-hit", 10_000, 0.25),
    ("interval/invalidate-1-hit", 100_000, 0.35),
    ("interval/invalidate-1-hit", 1_000_000, 0.25),

    ("interval/invalidate-100-hits", 100, 0.9),
    ("interval/invalidate-100-hits", 1_000, 0.65),
    ("interval/invalidate-100-hits", 10_000, 0.4),
    ("interval/invalidate-100-hits", 100_000, 0.2),
    ("interval/invalidate-100-hits", 1_000_000, 0.12),

    ("interval/read-begin+retry", 1, 0.4),
    ("interval/read-begin+retry", 10, 0.4),
    ("interval/read-begin+retry", 100, 0.4),
    ("interval/read-begin+retry", 1_000, 0.4),
    ("interval/read-begin+retry", 10_000, 0.4),
    ("interval/read-begin+retry", 100_000, 0.55),
    ("interval/read-begin+retry", 1_000_000, 0.9),

    ("interval/insert-random", 1, 1.0),
    ("interval/insert-random", 10, 1.0),
    ("interval/insert-random", 100, 2.5),
    ("interval/insert-random", 1_000, 1.4),
    ("interval/insert-random", 10_000, 0.7),
    ("interval/insert-random", 100_000, 0.7),
    ("interval/insert-random", 1_000_000, 0.4),

    ("interval/remove", 1, 1.0),
    ("interval/remove", 10, 1.0),
    ("interval/remove", 100, 2.5),
    ("interval/remove", 1_000, 0.6),
    ("interval/remove", 10_000, 0.5),
    ("interval/remove", 100_000, 0.4),
    ("interval/remove", 1_000_000, 0.25),

    ("invalidate/list", 1, 0.25),
    ("invalidate/list", 4, 0.5),
    ("invalidate/list", 16, 0.9),

    ("unregister+register", 1, 0.8),
    ("unregister+register", 4, 0.8),
    ("unregister+register", 16, 0.8),

    ("interval/invalidate-hit threads", 1, 0.35),
    ("interval/invalidate-hit threads", 2, 0.12),
    ("interval/read threads", 1, 0.12),
    ("interval/read threads", 2, 0.04),
    ("interval/invalidate-hit, 2 threads to 1 [own]", 2, 0.6),

    ("interval/insert-random, warm [kernel-like]", 1, 1.5),
    ("interval/insert-random, warm [kernel-like]", 10, 1.5),
    ("interval/insert-random, warm [kernel-like]", 100, 1.8),
    ("interval/insert-random, warm [kernel-like]", 1_000, 0.9),
    ("interval/insert-random, warm [kernel-like]", 10_000, 0.7),

    ("interval/read-begin+retry beside an invalidator [kernel-like]", 1_000, 0.2),
    ("interval/hit+read of the same [kernel-like]", 1_000, 0.3),
    ("interval/invalidate-1-hit beside churn [kernel-like]", 1_000, 0.3),
    ("interval/insert+remove beside an invalidator [kernel-like]", 1_000, 0.3),
    ("interval/invalidate-1500-hits [kernel-like]", 100_000, 0.3),
    ("interval/invalidate-1-hit below 16 long ones [kernel-like]", 1_000_000, 0.3),
    ("exit [kernel-like]", 1_000_000, 0.9),
    ("unregister beside a walker [kernel-like]", 1, 0.8),

    ("interval/remove while others never pause [us]", 1, 10.0),
    ("subscription [bytes]", 1_000_000, 112.0),
];

/// The target of a row, if it has one.
pub(crate) fn of(row: &str, n: u64) -> Option<f64> {
    TARGETS.iter().find(|target| target.0 == row && target.1 == n).map(|target| target.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_one_target_at_the_most() {
        for (index, (row, n, _)) in TARGETS.iter().enumerate() {
            assert!(!TARGETS[..index].iter().any(|other| (other.0, other.1) == (row, *n)), "{row} {n}");
        }
        assert_eq!(of("invalidate/list", 4), Some(0.5));
        assert_eq!(of("invalidate/list", 5), None);
    }
}
