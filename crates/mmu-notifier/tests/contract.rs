//! One test a clause of the contract, on real threads and with hostile timing.
//!
//! Each module covers a group of clauses; a test is named after its clause. `harness` holds what makes a
//! wait fail loudly instead of hanging, and `probe` the subscriber whose callbacks block, refuse, panic or
//! call back.

mod contract {
    mod c2_objects;
    mod c3_async;
    mod c3_hits;
    mod c3_intervals;
    mod c3_passes;
    mod c3_reads;
    mod c3_remove;
    mod c3_replace;
    mod c4_grace;
    mod c4_list;
    mod c4_shared;
    mod c5_batches;
    mod c5_invalidation;
    mod c5_refusals;
    mod c7_allocation;
    mod c7_failures;
    mod c7_later_panics;
    mod c7_no_memory;
    mod c8_exit;
    mod c8_inside;
    mod c9_diagnostics;
    mod harness;
    mod mended;
    mod probe;
    mod properties;
}
