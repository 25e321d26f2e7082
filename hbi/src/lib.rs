//! Typed Hosting Based Interface.
