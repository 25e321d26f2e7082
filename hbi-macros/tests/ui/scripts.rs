//! What a script in Rust source cannot have.

fn main() {
    let (n, step) = (1, 2);
    let _ = hbi::script! { b"bytes" + 1u8 + r#struct };
    let _ = hbi::script! { let n = 1; n + $n };
    let _ = hbi::script! { $self + $new + $ };
    let _ = hbi::script!("a + n", n, step, n = 2, new = 3);
}
