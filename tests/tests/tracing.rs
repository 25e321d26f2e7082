//! Traces: contexts travel through nested calls, and conversations have spans where asked for.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{LazyLock, Mutex},
    task::Poll,
};

use hbi::{Caller, HostingEnv, Options, TraceContext, testing};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{layer::Context, prelude::*, registry::LookupSpan};

/// Tells of its trace.
#[hbi::service]
trait Traced {
    /// The trace context of the call, as text.
    async fn trace(&self, cx: &Caller) -> Option<String>;
    /// That of this call, and what the caller's own `trace` says to a call made for it.
    async fn both(&self, cx: &Caller) -> Result<(Option<String>, Option<String>), String>;
    /// Waits for ever.
    async fn never(&self);
    /// Waits a little, within the span of its conversation.
    async fn waits(&self);
    /// Hears something.
    #[hbi(notify)]
    async fn hear(&self);
}

struct Teller;

impl Traced for Teller {
    async fn trace(&self, cx: &Caller) -> Option<String> {
        cx.trace().map(|trace| trace.to_string())
    }

    async fn both(&self, cx: &Caller) -> Result<(Option<String>, Option<String>), String> {
        // not ready at once, so that it goes on in a task
        tokio::task::yield_now().await;
        let there = TracedStub::new(&cx.po()).trace();
        let there = there.await.map_err(|error| error.to_string())?;
        Ok((cx.trace().map(|trace| trace.to_string()), there))
    }

    async fn never(&self) {
        std::future::pending().await
    }

    async fn waits(&self) {
        tokio::task::yield_now().await;
        tracing::info_span!("inner").in_scope(|| {});
    }

    async fn hear(&self) {}
}

/// Two peers that host the same; both, one or none of them make spans.
async fn joined(server: bool, client: bool) -> (testing::Pair, TracedStub) {
    let env = || HostingEnv::new().service(TracedHost::new(Teller));
    let options = |trace| Options::new().trace(trace);
    let pair = testing::pair_with((&options(server), env()), (&options(client), env()))
        .await
        .expect("the environments are sound");
    let stub = TracedStub::new(&pair.client);
    (pair, stub)
}

fn parsed(text: Option<String>) -> TraceContext {
    text.expect("there is a trace").parse().expect("it parses")
}

/// Spans that were made, and not closed yet or closed.
static SPANS: LazyLock<Mutex<HashMap<u64, Made>>> = LazyLock::new(Mutex::default);

/// A span as it was made.
#[derive(Debug, Clone, Default)]
struct Made {
    name: &'static str,
    fields: HashMap<&'static str, String>,
    parent: Option<u64>,
    closed: bool,
}

/// Notes spans.
struct Notes;

impl Visit for Made {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}").trim_matches('"').to_owned();
        self.fields.insert(field.name(), value);
    }
}

// a registry's ids are used again once a span is closed: each test takes what it made by its trace
impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Notes {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, cx: Context<'_, S>) {
        let mut made = Made {
            name: attributes.metadata().name(),
            parent: cx.current_span().id().map(span::Id::into_u64),
            ..Made::default()
        };
        attributes.record(&mut made);
        let mut spans = SPANS.lock().unwrap();
        if let Some(old) = spans.insert(id.into_u64(), made) {
            let key = u64::MAX - spans.len() as u64;
            spans.insert(key, old);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, _: Context<'_, S>) {
        if let Some(made) = SPANS.lock().unwrap().get_mut(&id.into_u64()) {
            values.record(made);
        }
    }

    fn on_close(&self, id: span::Id, _: Context<'_, S>) {
        if let Some(made) = SPANS.lock().unwrap().get_mut(&id.into_u64()) {
            made.closed = true;
        }
    }
}

/// Notes all spans of this process from now on.
fn note() {
    static NOTED: LazyLock<()> = LazyLock::new(|| {
        tracing_subscriber::registry().with(Notes).init();
    });
    LazyLock::force(&NOTED);
}

/// The spans of a trace.
fn spans_of(trace: &TraceContext) -> Vec<Made> {
    let text = trace.to_string();
    let id = text.split('-').nth(1).expect("it has an id");
    let of_it = |made: &&Made| made.fields.get("trace_id").is_some_and(|it| it == id);
    SPANS
        .lock()
        .unwrap()
        .values()
        .filter(of_it)
        .cloned()
        .collect()
}

/// The one span of a name and a call.
fn one<'a>(spans: &'a [Made], name: &str, call: &str) -> &'a Made {
    let is_it =
        |made: &&Made| made.name == name && made.fields.get("call").is_some_and(|c| c == call);
    let mut found = spans.iter().filter(is_it);
    match (found.next(), found.next()) {
        (Some(made), None) => made,
        _ => panic!("not one {name} of {call}: {spans:#?}"),
    }
}

#[tokio::test]
async fn without_the_option_there_is_no_trace() {
    let (_pair, stub) = joined(false, false).await;
    assert_eq!(stub.trace().await.unwrap(), None);
    assert_eq!(stub.both().await.unwrap(), (None, None));
}

#[tokio::test]
async fn a_trace_reaches_nested_calls() {
    for (server, client) in [(true, true), (false, true), (true, false)] {
        let (_pair, stub) = joined(server, client).await;
        let (first, nested) = stub.both().await.unwrap();
        if client {
            let (first, nested) = (parsed(first), parsed(nested));
            assert_eq!(first.trace_id(), nested.trace_id());
            // where the server makes spans the nested call is one of its own
            assert_eq!(first.span_id() != nested.span_id(), server);
            let another = parsed(stub.trace().await.unwrap());
            assert_ne!(first.trace_id(), another.trace_id());
        } else {
            // begun where the call arrived
            assert_eq!(parsed(first).trace_id(), parsed(nested).trace_id());
        }
    }
}

#[tokio::test]
async fn a_trace_from_elsewhere_is_passed_on() {
    for traced in [false, true] {
        let (_pair, stub) = joined(traced, traced).await;
        let context = TraceContext::begin();
        let call = async { stub.both().await };
        let (first, nested) = context.carry(call).await.unwrap();
        let (first, nested) = (parsed(first), parsed(nested));
        assert_eq!(first.trace_id(), context.trace_id());
        assert_eq!(nested.trace_id(), context.trace_id());
        assert_eq!(first == context, !traced);
        assert_eq!(TraceContext::current(), None);
    }
}

#[tokio::test]
async fn both_sides_have_spans_that_last_as_the_conversation() {
    note();
    let (_pair, stub) = joined(true, true).await;
    let trace = TraceContext::begin();
    trace.carry(async { stub.both().await }).await.unwrap();
    let spans = spans_of(&trace);
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let posted = one(&spans, "post", "traced::both");
    let hosted = one(&spans, "host", "traced::both");
    let back = one(&spans, "post", "traced::trace");
    let there = one(&spans, "host", "traced::trace");
    let text = trace.to_string();
    let outer = text.split('-').nth(2).unwrap();
    assert_eq!(posted.fields["parent_id"], outer);
    assert_eq!(posted.fields["span_id"], hosted.fields["span_id"]);
    assert_eq!(back.fields["parent_id"], hosted.fields["span_id"]);
    assert_eq!(back.fields["span_id"], there.fields["span_id"]);
    assert_eq!(posted.fields["peer"], "memory");
    assert!(back.parent.is_some(), "it was made within the host's span");

    let waiting = TraceContext::begin();
    // within the trace only until it is sent
    let mut never = stub.never();
    let sent = waiting.carry(std::future::poll_fn(|cx| {
        assert!(Pin::new(&mut never).poll(cx).is_pending());
        Poll::Ready(())
    }));
    sent.await;
    while !spans_of(&waiting).iter().any(|made| made.name == "host") {
        tokio::task::yield_now().await;
    }
    assert!(spans_of(&waiting).iter().all(|made| !made.closed));
    drop(never);
    while !spans_of(&waiting).iter().all(|made| made.closed) {
        tokio::task::yield_now().await;
    }

    let notified = TraceContext::begin();
    notified.carry(async { stub.hear().await }).await.unwrap();
    assert!(one(&spans_of(&notified), "post", "traced::hear").closed);
    stub.waits().await.unwrap();
    let made = SPANS.lock().unwrap();
    let inner = made.values().find(|made| made.name == "inner");
    assert!(inner.is_some_and(|inner| inner.parent.is_some()));
}

#[tokio::test]
async fn a_side_that_does_not_trace_makes_no_spans() {
    note();
    let (_pair, stub) = joined(false, false).await;
    let trace = TraceContext::begin();
    trace.carry(async { stub.both().await }).await.unwrap();
    assert!(spans_of(&trace).is_empty());
}
