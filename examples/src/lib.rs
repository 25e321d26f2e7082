//! Programs a newcomer runs; see the `examples` folder.
