//! Ranges that lie where searches decide: at the ends of the space, in its middle (where signs change), and beside the
//! bounds of those that are there; with each way to compare that this machine has.

use super::super::compare::{Compare, Scalar};
use super::*;

const MIDDLE: u64 = 1 << 63;
const EDGES: [u64; 11] =
    [0, 1, 2, 7, MIDDLE - 2, MIDDLE - 1, MIDDLE, MIDDLE + 1, u64::MAX - 2, u64::MAX - 1, u64::MAX];

/// Of eight bytes so many are edges, and so many lie beside a bound that is there; the others are of any size.
struct Mixture {
    edges: u64,
    beside_bounds: u64,
}

const MIXTURES: [Mixture; 3] = [
    Mixture { edges: 8, beside_bounds: 0 },
    Mixture { edges: 2, beside_bounds: 4 },
    Mixture { edges: 1, beside_bounds: 0 },
];

impl Mixture {
    fn byte(&self, fixture: &mut Fixture) -> u64 {
        let dice = fixture.random.below(8);
        if dice < self.edges {
            return EDGES[fixture.random.below(EDGES.len() as u64) as usize];
        }
        if dice < self.edges + self.beside_bounds && !fixture.nodes.is_empty() {
            let at = fixture.random.below(fixture.nodes.len() as u64) as usize;
            // SAFETY: nodes of the fixture are alive until they are removed.
            let (first, last) = unsafe { fixture.nodes[at].as_ref() }.bounds();
            let bound = if fixture.random.below(2) == 0 { first } else { last };
            return bound.saturating_add(fixture.random.below(2)).saturating_sub(fixture.random.below(2));
        }
        let wide = fixture.random.below(1 << 32) << 32 | fixture.random.below(1 << 32);
        wide >> fixture.random.below(64)
    }

    fn range(&self, fixture: &mut Fixture) -> Range {
        let begin = self.byte(fixture);
        let end = match fixture.random.below(4) {
            0 => begin,
            1 => begin.saturating_add(fixture.random.below(40)),
            _ => self.byte(fixture),
        };
        Range::from_first_last(begin.min(end), begin.max(end)).unwrap()
    }
}

fn check_edges(fixture: &Fixture) {
    for edge in EDGES {
        for (first, last) in [(edge, edge), (0, edge), (edge, u64::MAX)] {
            fixture.check(Range::from_first_last(first, last).unwrap());
        }
    }
}

#[test]
fn ranges_that_lie_where_searches_decide() {
    for seed in 1..3 {
        for mixture in MIXTURES {
            for most in [40, 300] {
                let mut plain = Fixture::new(seed + most);
                plain.index.compare = Compare::Scalar(Scalar);
                for fixture in [&mut Fixture::new(seed + most), &mut plain] {
                    churn(fixture, 5 * most, most, |fixture| mixture.range(fixture), check_edges);
                }
            }
        }
    }
}
