//! A plain model of the contract, and the work loads that put its properties under stress.
//!
//! [`model`] predicts, under one mutex's worth of state and with plain vectors, what each of a sequence of
//! [`operation`]s returns and whom it calls; [`driver`] runs the same sequence on the real library, and both
//! tell the same [`story`]. The
//! [`crowd`] does so for thousands of intervals. The rest are work loads for many threads, each with a checker
//! that notices a violation of one property: [`mirror`] (P1), [`grave`] (P2), [`shared`] (P4), [`leaving`]
//! (P3, P5), [`refusal`] (P6), [`roll`] (P7), [`bystander`] (P8), and [`threads`] (threads that are gone, fork). [`built`] is for
//! tests that use a library of another package.

pub mod built;
pub mod bystander;
pub mod crowd;
pub mod driver;
pub mod grave;
pub mod leaving;
pub mod mirror;
pub mod model;
pub mod operation;
pub mod refusal;
pub mod roll;
pub mod run;
pub mod shared;
pub mod story;
pub mod threads;

/// The README, whose example is compiled and run with the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct ReadMe;
