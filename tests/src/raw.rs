//! The bytes of the mux wire, written by hand.

/// The page that documents the wire.
pub const PAGE: &str = include_str!("../../docs/wire.md");

/// The bytes of a `vector` block of the page.
///
/// # Panics
/// When the page has none of that name.
pub fn vector(name: &str) -> Vec<u8> {
    let (_, block) = PAGE
        .split_once(&format!("```vector {name}\n"))
        .expect("the page has it");
    let (hex, _) = block.split_once("```").expect("the block ends");
    hex.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("two digits"))
        .collect()
}

/// A frame.
pub fn frame(kind: u8, co: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_le_bytes()[..3].to_vec();
    frame.push(kind);
    frame.extend_from_slice(&co.to_le_bytes());
    frame.extend_from_slice(body);
    frame
}
