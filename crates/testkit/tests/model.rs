//! Random operations on the real library and on the slow model must tell the same story.

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use testkit::crowd::{Crowd, Shape};
use testkit::driver::Driver;
use testkit::model::Model;
use testkit::operation::{Operation, sequences};
use testkit::run::{Run, number, watched};

/// Runs the sequence, and what clears up behind it, on both.
fn compare(sequence: &[Operation]) -> Result<(), TestCaseError> {
    let (mut model, mut driver) = (Model::new(), Driver::new());
    let mut step = |model: &mut Model, index: usize, operation: &Operation| {
        let (expected, found) = (model.step(operation), driver.step(operation));
        proptest::prop_assert_eq!(found, expected, "at {}: {:?}", index, operation);
        Ok(())
    };
    for (index, operation) in sequence.iter().enumerate() {
        step(&mut model, index, operation)?;
    }
    let clearance = model.clearance();
    for (index, operation) in clearance.iter().enumerate() {
        step(&mut model, sequence.len() + index, operation)?;
    }
    Ok(())
}

fn runner(run: Run, cases: u32) -> TestRunner {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&run.seed().to_le_bytes());
    // The printed seed repeats the run, so no file is needed to remember failures.
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

fn compare_many(run: Run, default_cases: u64, length: usize) {
    let cases = number("MODEL_CASES").unwrap_or(default_cases) as u32;
    let outcome = runner(run, cases).run(&sequences(length), |sequence| compare(&sequence));
    if let Err(failure) = outcome {
        panic!("STRESS_SEED={}: {failure}", run.seed());
    }
}

#[test]
fn short_sequences_agree_with_the_model() {
    watched("short sequences", |run| compare_many(run, 2000, 25));
}

#[test]
fn long_sequences_agree_with_the_model() {
    watched("long sequences", |run| compare_many(run, 150, 300));
}

#[test]
fn a_crowd_is_hit_exactly_and_in_order() {
    watched("crowd", |run| {
        let size = number("CROWD").unwrap_or(3000) as usize;
        for (index, shape) in Shape::ALL.into_iter().enumerate() {
            let mut random = run.random(index as u64);
            let mut crowd = Crowd::new(shape, size, &mut random);
            crowd.check_all(20, &mut random);
            for _ in 0..4 {
                crowd.churn(size / 3, &mut random);
                crowd.check_all(20, &mut random);
            }
        }
    });
}

#[test]
fn a_crowd_that_grows_from_nothing_and_shrinks_again_is_hit_exactly() {
    watched("small crowds", |run| {
        let mut random = run.random(0);
        for round in 0..60 {
            let shape = Shape::ALL[round % Shape::ALL.len()];
            let mut crowd = Crowd::new(shape, round, &mut random);
            crowd.check_all(3, &mut random);
            crowd.churn(40, &mut random);
            crowd.check_all(3, &mut random);
        }
    });
}
