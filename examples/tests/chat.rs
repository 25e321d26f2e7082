//! The chat as a whole: what it prints over each transport, members that do not listen, a server
//! that is killed, names that mean harm.

// the programs of the example, of which no test uses everything
#![allow(dead_code)]

#[path = "../chat/claims.rs"]
mod claims;
#[path = "../chat/cli.rs"]
mod cli;
#[path = "../chat/client/mod.rs"]
mod client;
#[path = "../chat/files.rs"]
mod files;
#[path = "../chat/flat.rs"]
mod flat;
#[path = "../chat/names.rs"]
mod names;
#[path = "../chat/partial.rs"]
mod partial;
#[path = "../chat/protocol.rs"]
mod protocol;
#[path = "../chat/server/mod.rs"]
mod server;
#[path = "../chat/space.rs"]
mod space;
#[path = "../chat/spam/mod.rs"]
mod spam;
#[path = "../chat/store.rs"]
mod store;

mod chat_tests;
