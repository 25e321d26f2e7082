//! What a service cannot be.

#[hbi::service]
pub unsafe trait Odd<'a> {
    type Item;
    const SIZE: usize;
    async fn good(&self);
}

#[hbi::service]
pub trait Shown<T>
where
    T: std::fmt::Display + Send + Sync + 'static,
    Self: std::fmt::Display,
    Vec<T>: Into<Box<Self>>,
{
    async fn fine(&self);
}

#[hbi::service]
struct NoTrait {
    field: i64,
}

fn main() {
    let _ = |peer: hbi::Peer| ShownStub::<i64>::new(&peer).fine();
    let _ = NoTrait { field: 1 }.field;
}
