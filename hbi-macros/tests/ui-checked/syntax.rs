//! Scripts whose syntax is wrong: the error stands on the token.

fn main() {
    let (n, step) = (3, 4);
    let _ = hbi::script! {
        let t = 0;
        for i in 0..$n {
            t += calc::add(i, $step
                4);
        }
        t
    };
    let _ = hbi::script! { let match = 1; };
    let _ = hbi::script! { calc::add(1, ) + };
    let _ = hbi::script!("let t = 1;
        t + * 1");
    let _ = hbi::script! { calc::add($n, $step) };
}
