//! Diagnostics of the macros: each case has the text that a user sees beside it. Texts of the
//! compiler's own, which change with its releases, are none of them.

#[test]
fn diagnostics() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
    #[cfg(feature = "checked")]
    cases.compile_fail("tests/ui-checked/*.rs");
}
