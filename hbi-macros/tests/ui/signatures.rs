//! What a method's signature cannot have.

use std::sync::Arc;

#[hbi::service]
pub trait Calc {
    async fn by_value(self) -> i64;
    async fn by_mut(&mut self) -> i64;
    async fn by_arc(self: Arc<Self>) -> i64;
    async fn no_receiver(a: i64) -> i64;
    async fn generic<T: Send>(&self, value: T) -> i64;
    async fn lifetime<'a>(&self, text: std::borrow::Cow<'a, str>) -> i64;
    async fn sized(&self) -> i64
    where
        Self: Sized;
    async unsafe fn not_safe(&self) -> i64;
    extern "C" fn foreign(&self) -> i64;
    async fn good(&self) -> i64;
}

struct My;

// one mistake is not followed by "not a member of trait"
impl Calc for My {
    async fn by_value(self) -> i64 {
        1
    }
    async fn by_mut(&mut self) -> i64 {
        1
    }
    async fn by_arc(self: Arc<Self>) -> i64 {
        1
    }
    async fn no_receiver(a: i64) -> i64 {
        a
    }
    async fn generic<T: Send>(&self, _value: T) -> i64 {
        1
    }
    async fn lifetime<'a>(&self, _text: std::borrow::Cow<'a, str>) -> i64 {
        1
    }
    async fn sized(&self) -> i64 {
        1
    }
    async unsafe fn not_safe(&self) -> i64 {
        1
    }
    extern "C" fn foreign(&self) -> i64 {
        1
    }
    async fn good(&self) -> i64 {
        1
    }
}

fn main() {
    let _ = CalcHost::new(My);
}
