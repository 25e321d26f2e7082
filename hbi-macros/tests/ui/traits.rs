//! What a service cannot be.

#[hbi::service]
pub unsafe trait Odd<'a> {
    type Item;
    const SIZE: usize;
    async fn good(&self);
}

#[hbi::service]
struct NoTrait {
    field: i64,
}

fn main() {
    let _ = NoTrait { field: 1 }.field;
}
