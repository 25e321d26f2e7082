//! The macros of `hbi`.
