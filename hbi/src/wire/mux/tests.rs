//! The state machine: two of them joined, and one against frames written by hand.
