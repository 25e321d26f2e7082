//! What two peers can rely on, over every transport: one list of behaviours, run over each.

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use futures_util::FutureExt;
use hbi::{Blame, CallError, Kind, Options, Reactor, Script, Settings};
// a pair's owners are bound in each test: the connection lives as long as they do
use hbi_tests::{
    given_up::GivenUp,
    pair::{Pair, Transport},
    work::{
        CounterHost, CounterStub, DivError, Event, FileError, FileMeta, MyCounter, NestedItems,
        bytes_of,
    },
};
use tokio::{sync::mpsc, task::JoinSet};

/// Runs every behaviour over one transport.
macro_rules! over {
    ($($transport:ident as $module:ident),*) => {$(
        mod $module {
            behaviours!($transport);
        }
    )*};
}

macro_rules! behaviours {
    ($transport:ident) => {
        each!($transport:
            calls_answer_values, methods_that_could_go_on_are_polled_once, errors_arrive_typed,
            notifications_are_heard_and_pushed_back,
            a_composition_is_one_round_trip, errors_of_steps_say_which, scripts_call_the_same_methods,
            unknown_names_and_wrong_arguments_are_told, a_panic_is_the_callers_error_only,
            replies_come_out_of_order, thousand_calls_both_ways, items_come_and_end,
            the_error_of_a_stream_is_told_apart, a_slow_consumer_slows_the_producer,
            items_go_in_and_both_ways, data_goes_up_and_down, data_that_breaks_off_is_an_error,
            objects_are_called_and_released, objects_compose_and_come_back, callbacks_reach_the_caller,
            a_conversation_sends_a_file, a_conversation_receives_a_file,
            a_conversation_ends_with_the_methods_error, an_abandoned_conversation_is_told,
            raw_conversations_mix_scripts_and_objects,
            scripts_are_the_ones_that_were_sent, data_is_read_on_by_its_length,
            data_behind_a_writer_that_failed_is_still_there,
            what_is_refused_here_is_no_error_of_the_peer,
            who_gives_up_closing_abandons, a_script_that_is_refused_gives_out_nothing,
            dropping_a_call_cancels_it,
            a_deadline_cancels_and_is_inherited, stubborn_methods_run_to_their_end,
            stubborn_steps_of_scripts_run_to_their_end, stubborn_methods_are_counted,
            ten_thousand_cancelled_calls_leave_nothing, large_values_travel, limits_are_named,
            room_is_used_though_some_who_waited_for_it_are_gone,
            who_gives_up_waiting_leaves_nothing_behind, a_deadline_bounds_the_wait_for_room,
            answers_beyond_what_is_held_take_turns,
            large_items_beyond_what_is_held_take_turns,
            streams_dropped_within_an_item_disturb_nothing,
            streams_within_streams_are_read_in_any_order,
            a_stream_in_an_answer_that_nobody_took_ends,
            answers_are_held_until_they_left_though_their_streams_go_on, nesting_and_calls_back,
            a_cut_connection_ends_every_wait, goodbye_lets_calls_finish,
            after_a_shutdown_calls_are_told, one_reader_that_stands_still_stops_nobody_else
        );
    };
}

macro_rules! each {
    ($transport:ident: $($behaviour:ident),*) => {$(
        #[tokio::test]
        async fn $behaviour() {
            let run = super::$behaviour(hbi_tests::pair::Transport::$transport);
            let ended = tokio::time::timeout(std::time::Duration::from_secs(60), run).await;
            ended.expect("nothing hangs");
        }
    )*};
}

over!(
    Mem as mem,
    Tcp as tcp,
    Tls as tls,
    Unix as unix,
    Quic as quic,
    QuicEarly as quic_early,
    QuicAnew as quic_anew
);

async fn calls_answer_values(over: Transport) {
    let Pair {
        work,
        server,
        peer: _peer,
        ..
    } = over.pair().await;
    assert_eq!(work.add(1, 2).await.unwrap(), 3);
    assert_eq!(work.now().await.unwrap(), 42);
    assert_eq!(work.version().await.unwrap(), 7);
    assert_eq!(work.echo(vec![7; 100_000]).await.unwrap(), vec![7; 100_000]);
    assert_eq!(server.connections(), 1);
}

async fn methods_that_could_go_on_are_polled_once(over: Transport) {
    let Pair {
        peer,
        work,
        server: _server,
        ..
    } = over.pair().await;
    // far more than a task has of the runtime's budget, for one method and for those of one read
    let calls = (0..8).map(|_| work.spend(1000));
    let polls = futures_util::future::join_all(calls).await;
    assert!(polls.into_iter().all(|polls| polls.unwrap() == 1));
    let line = "let a = work::spend(n); work::add(a, work::spend(n))";
    let two: i64 = peer.script(line).bind("n", 1000).await.unwrap();
    assert_eq!(two, 2);
    let free = "let n = 0; for i in 0..3 { n += work::spend(1000); } n";
    assert_eq!(peer.script::<i64>(free).await.unwrap(), 3);
}

async fn errors_arrive_typed(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    assert_eq!(work.div(7, 2).await.unwrap(), 3);
    match work.div(1, 0).await {
        Err(CallError::App(DivError::ByZero)) => {}
        other => panic!("{other:?}"),
    }
}

async fn notifications_are_heard_and_pushed_back(over: Transport) {
    let Pair {
        work,
        seen,
        mut events,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    work.log("one").await.unwrap();
    seen.until(|seen| seen.lines.lock().unwrap().len() == 1)
        .await;
    assert_eq!(
        events.recv().await.unwrap(),
        Event {
            room: "one".into(),
            n: 0
        }
    );
    work.log("two").confirmed().await.unwrap();
    assert_eq!(work.lines().await.unwrap(), ["one", "two"]);
}

async fn a_composition_is_one_round_trip(over: Transport) {
    let Pair {
        work,
        peer,
        server: _server,
        ..
    } = over.pair().await;
    assert_eq!(work.add(work.add(1, 2), 27).await.unwrap(), 30);
    let shared = work.add(1, 1);
    let both = work.add(&shared, &shared);
    assert_eq!(both.await.unwrap(), 4);
    let (a, b, c) = hbi::all((work.add(1, 2), work.lines(), work.div(9, 3)))
        .await
        .unwrap();
    assert_eq!((a, b, c), (3, vec![], 3));
    let list: Vec<i64> = (0..5)
        .map(|n| work.add(n, 1))
        .collect::<hbi::Call<Vec<i64>>>()
        .await
        .unwrap();
    assert_eq!(list, [1, 2, 3, 4, 5]);

    let once = work.add(1, 2);
    let twice = work.add(&once, 1);
    twice.await.unwrap();
    let error = work.add(&once, 1).await.unwrap_err();
    assert!(
        error.kind() == Kind::Misuse && error.message().contains("would run twice"),
        "{error}"
    );

    let other = over.pair().await;
    let error = work.add(other.work.add(1, 2), 3).await.unwrap_err();
    assert!(
        error.message().contains("another connection") && !error.was_sent(),
        "{error}"
    );
    assert_eq!(peer.conversations().0, 0);
}

async fn errors_of_steps_say_which(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    let error = work.add(work.div(1, 0), 27).await.unwrap_err();
    assert_eq!(error.origin(), "work::div");
    assert_eq!(error.app::<DivError>(), Some(DivError::ByZero));
    // the outer method has the same kind of error, but it was the inner one's
    match work.div(work.div(1, 0), 1).await {
        Err(error) => assert!(error.to_string().contains("division by zero"), "{error}"),
        Ok(n) => panic!("{n}"),
    }
}

async fn scripts_call_the_same_methods(over: Transport) {
    let Pair {
        peer,
        work,
        server: _server,
        ..
    } = over.pair().await;
    let five: i64 = peer
        .script("work::add(a, b)")
        .bind("a", 2)
        .bind("b", 3)
        .await
        .unwrap();
    assert_eq!(five, 5);
    let line = "let v = work::add(a, 1); work::log(\"hi\"); work::add(v, v)";
    for _ in 0..3 {
        let eight: i64 = peer.script(line).bind("a", 3).await.unwrap();
        assert_eq!(eight, 8);
    }
    assert_eq!(work.lines().await.unwrap(), ["hi", "hi", "hi"]);
    let size: u64 = peer
        .script("work::download(\"f\", 9)[0].size")
        .await
        .unwrap_or(9);
    assert_eq!(size, 9);
    let total: (u64, u64) = peer
        .script("work::upload(name, data)")
        .bind("name", "x")
        .bind("data", hbi::Data::from("abc"))
        .await
        .unwrap();
    assert_eq!(total, (3, 294));
}

async fn unknown_names_and_wrong_arguments_are_told(over: Transport) {
    let Pair {
        peer,
        work,
        server: _server,
        ..
    } = over.pair().await;
    let error = peer.script::<i64>("work::ad(1)").await.unwrap_err();
    assert!(error.is_unknown() && error.is_remote(), "{error}");
    assert!(
        error.to_string().contains("work::add"),
        "it lists what there is: {error}"
    );
    let error = peer.script::<i64>("work::add(1)").await.unwrap_err();
    assert!(
        error.is_arguments() && error.to_string().contains("(a: i64, b: i64)"),
        "{error}"
    );
    let error = peer
        .script::<i64>("work::add(1, \"two\")")
        .await
        .unwrap_err();
    assert!(
        error.is_arguments() && error.to_string().contains("`b: i64`"),
        "{error}"
    );
    let error = peer.script::<String>("work::add(1, 2)").await.unwrap_err();
    assert!(error.kind() == Kind::Value && !error.is_remote(), "{error}");
    let error = peer.script::<i64>("work::add(1,").await.unwrap_err();
    assert!(error.is_script() && error.place().is_some(), "{error}");
    assert!(
        error.to_string().contains("1 | work::add(1,"),
        "it shows the place: {error}"
    );
    assert_eq!(
        work.add(1, 1).await.unwrap(),
        2,
        "nothing else is disturbed"
    );
}

async fn a_panic_is_the_callers_error_only(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    let error = work.panic().await.unwrap_err();
    assert!(
        error.is_panic() && error.to_string().contains("as it was told"),
        "{error}"
    );
    assert_eq!(work.add(1, 1).await.unwrap(), 2);
}

async fn replies_come_out_of_order(over: Transport) {
    let Pair {
        work,
        seen,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    let first = tokio::spawn(work.wait(1));
    seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1)
        .await;
    assert_eq!(work.add(1, 2).await.unwrap(), 3);
    assert!(!first.is_finished());
    work.open_gates().await.unwrap();
    assert_eq!(first.await.unwrap().unwrap(), 1);
}

async fn thousand_calls_both_ways(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    let mut calls = JoinSet::new();
    for n in 0..1000 {
        // each is answered by a call in the other direction
        calls.spawn(work.add_there(n, 1));
    }
    let mut sum = 0;
    while let Some(n) = calls.join_next().await {
        sum += n.unwrap().unwrap();
    }
    assert_eq!(sum, (0..1000).map(|n| n + 1).sum::<i64>());
}

async fn items_come_and_end(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    let mut events = work.watch("tea", 100).await.unwrap();
    for n in 0..100 {
        let event = events.try_next().await.unwrap();
        assert_eq!(
            event,
            Some(Event {
                room: "tea".into(),
                n
            })
        );
    }
    assert_eq!(events.try_next().await.unwrap(), None);
    assert!(
        work.watch("tea", 0)
            .await
            .unwrap()
            .collect()
            .await
            .unwrap()
            .is_empty()
    );
}

async fn the_error_of_a_stream_is_told_apart(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    let mut events = work.watch_failing(3).await.unwrap();
    for _ in 0..3 {
        assert!(events.try_next().await.unwrap().is_some());
    }
    let error = events.try_next().await.unwrap_err();
    assert!(error.to_string().contains("the source ran dry"), "{error}");
}

async fn a_slow_consumer_slows_the_producer(over: Transport) {
    let Pair {
        work,
        peer,
        server: _server,
        ..
    } = over.pair().await;
    let mut events = work.endless().await.unwrap();
    for n in 0..1000 {
        assert_eq!(events.try_next().await.unwrap().unwrap().n, n);
    }
    // a window holds some 384 KiB, the pipes and buffers between the two some more
    let made = work.made().await.unwrap();
    assert!(
        (1000..4000).contains(&made),
        "{made} items of 1 KB were made, 1000 taken"
    );
    drop(events);
    until_idle(&peer).await;
}

async fn items_go_in_and_both_ways(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    assert_eq!(work.total([1, 2, 3]).await.unwrap(), 6);
    let many = hbi::Items::iter(0..10_000);
    assert_eq!(work.total(many).await.unwrap(), (0..10_000).sum::<i64>());

    let (sender, items) = hbi::Items::channel(1);
    let mut doubled = work.doubled(items).await.unwrap();
    for n in 0..10 {
        sender.send(n).await.unwrap();
        assert_eq!(doubled.try_next().await.unwrap(), Some(2 * n));
    }
    sender.finish().await;
    assert_eq!(doubled.try_next().await.unwrap(), None);

    let (sender, items) = hbi::Items::channel(1);
    let total = tokio::spawn(work.total(items));
    sender.send(1).await.unwrap();
    drop(sender);
    let error = total.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("before its end"), "{error}");
}

async fn data_goes_up_and_down(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    assert_eq!(
        work.upload("f", vec![1u8; 1000]).await.unwrap(),
        (1000, 1000)
    );
    let (len, _) = work.upload("f", bytes_of(3_000_000)).await.unwrap();
    assert_eq!(len, 3_000_000);
    let (meta, data) = work.download("f", 3_000_000).await.unwrap();
    assert_eq!(
        meta,
        FileMeta {
            name: "f".into(),
            size: 3_000_000
        }
    );
    let bytes = data.to_bytes(usize::MAX).await.unwrap();
    assert_eq!(bytes.len(), 3_000_000);
    assert!(
        bytes.iter().enumerate().all(|(n, &b)| b == n as u8),
        "in order and whole"
    );
    match work.download("none", 1).await {
        Err(CallError::App(FileError::NotFound(name))) => assert_eq!(name, "none"),
        other => panic!("{other:?}"),
    }
    // what one method answers goes into another at the peer, and never comes here
    let relayed = work.upload("f", bytes_of(100_000));
    assert_eq!(relayed.await.unwrap().0, 100_000);
}

async fn data_that_breaks_off_is_an_error(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    let broken = futures_util::stream::iter([
        Ok(bytes::Bytes::from_static(b"half")),
        Err(hbi::Error::refusal("the disk broke")),
    ]);
    let error = work
        .upload("f", hbi::Data::stream(broken))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("the disk broke"), "{error}");
}

async fn objects_are_called_and_released(over: Transport) {
    let Pair {
        work,
        seen,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    let counter = work.counter(10).await.unwrap();
    assert_eq!(counter.bump(1).await.unwrap(), 11);
    assert_eq!(counter.clone().bump(1).await.unwrap(), 12);
    assert_eq!(seen.counters_dropped.load(Ordering::SeqCst), 0);
    drop(counter);
    while seen.counters_dropped.load(Ordering::SeqCst) == 0 {
        work.add(0, 0).await.unwrap();
    }
}

async fn objects_compose_and_come_back(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    assert_eq!(work.counter(5).bump(2).await.unwrap(), 7);
    let counter = work.counter(5).await.unwrap();
    assert_eq!(
        work.value_of(&counter).await.unwrap(),
        1,
        "to its owner it is the object itself"
    );
    assert_eq!(work.value_of(work.counter(1)).await.unwrap(), 1);
    let other = over.pair().await;
    let error = other.work.value_of(&counter).await.unwrap_err();
    assert!(error.to_string().contains("another connection"), "{error}");
}

async fn callbacks_reach_the_caller(over: Transport) {
    let Pair {
        work,
        peer,
        seen,
        server: _server,
        ..
    } = over.pair().await;
    let mine = Reactor::<CounterStub>::new(CounterHost::new(MyCounter::new(
        100,
        &seen.counters_dropped,
    )));
    assert_eq!(work.call_back(mine.clone(), 3).await.unwrap(), 103);
    // a script that gives it back, whose own hold on it ends with that
    for _ in 0..20 {
        let back = peer.script::<Vec<Reactor<CounterStub>>>("x");
        let back = back.bind("x", vec![mine.clone()]).await.unwrap();
        assert_eq!(back.len(), 1);
    }
    drop(mine);
    while peer.objects() > 0 {
        work.add(0, 0).await.unwrap();
    }
    assert_eq!(seen.counters_dropped.load(Ordering::SeqCst), 1);
}

async fn a_conversation_sends_a_file(over: Transport) {
    let Pair {
        work,
        peer,
        server: _server,
        ..
    } = over.pair().await;
    let mut co = work.send_file("f").await.unwrap();
    let meta: FileMeta = co.recv_obj().await.unwrap();
    let mut first = [0; 10];
    co.recv_exact(&mut first).await.unwrap();
    assert_eq!(first, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let mut rest = Vec::new();
    assert_eq!(co.recv_data(&mut rest).await.unwrap(), meta.size - 10);
    let done: String = co.recv_obj().await.unwrap();
    assert_eq!(done, "done");
    let error = co.recv_obj::<i64>().await.unwrap_err();
    assert!(
        error.to_string().contains("ended the conversation"),
        "{error}"
    );
    drop(co);
    until_idle(&peer).await;
}

async fn a_conversation_receives_a_file(over: Transport) {
    let Pair {
        work,
        peer,
        server: _server,
        ..
    } = over.pair().await;
    let mut co = work.recv_file("f").open().await.unwrap();
    co.send_obj(&FileMeta {
        name: "f".into(),
        size: 500_000,
    })
    .await
    .unwrap();
    co.send_data(bytes_of(500_000)).await.unwrap();
    let mut co = co.start_recv().await.unwrap();
    let answer: (bool, u64) = co.recv_obj().await.unwrap();
    assert_eq!(answer, (true, 500_000));
    co.wait_completed().await.unwrap();
    until_idle(&peer).await;
}

async fn a_conversation_ends_with_the_methods_error(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    let mut co = work.send_file("none").await.unwrap();
    let error = co.recv_obj::<FileMeta>().await.unwrap_err();
    assert!(
        error.is_refused() && error.to_string().contains("no such file"),
        "{error}"
    );
    assert_eq!(error.origin(), "work::send_file");
}

async fn an_abandoned_conversation_is_told(over: Transport) {
    let Pair {
        work,
        peer,
        server: _server,
        ..
    } = over.pair().await;
    let mut co = work.recv_file("f").open().await.unwrap();
    co.send_obj(&FileMeta {
        name: "f".into(),
        size: 5,
    })
    .await
    .unwrap();
    drop(co);
    until_idle(&peer).await;
    let mut co = work.send_file("f").await.unwrap();
    let _meta: FileMeta = co.recv_obj().await.unwrap();
    drop(co);
    until_idle(&peer).await;
    assert_eq!(work.add(1, 1).await.unwrap(), 2, "the connection goes on");
}

async fn raw_conversations_mix_scripts_and_objects(over: Transport) {
    let Pair {
        work,
        peer,
        seen,
        server: _server,
        ..
    } = over.pair().await;
    let mut co = peer.po().co().await.unwrap();
    co.send_code("work::log(\"one\")").await.unwrap();
    co.send_obj_of("work::add(1, 2)").await.unwrap();
    co.send_code("work::recv_file(\"f\")").await.unwrap();
    co.send_obj(&FileMeta {
        name: "f".into(),
        size: 5,
    })
    .await
    .unwrap();
    co.send_data("12345").await.unwrap();
    assert!(co.co_seq().is_some());
    let mut co = co.start_recv().await.unwrap();
    assert_eq!(co.recv_obj::<i64>().await.unwrap(), 3);
    assert_eq!(co.recv_obj::<(bool, u64)>().await.unwrap(), (true, 5));
    assert_eq!(work.lines().await.unwrap(), ["one"]);
    drop(co);

    peer.po().notif("work::log(\"two\")").await.unwrap();
    seen.until(|seen| seen.lines.lock().unwrap().len() == 2)
        .await;
    peer.po()
        .notif_data("work::recv_file(\"g\")", "xyz")
        .await
        .unwrap();
    until_idle(&peer).await;

    let mut co = peer.po().co().await.unwrap();
    co.send_obj(&5).await.unwrap();
    let error = co
        .start_recv()
        .await
        .unwrap()
        .recv_obj::<i64>()
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("no hosted code received"),
        "{error}"
    );
}

async fn dropping_a_call_cancels_it(over: Transport) {
    let Pair {
        work,
        seen,
        peer,
        server: _server,
        ..
    } = over.pair().await;
    let call = tokio::spawn(work.wait(1));
    seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1)
        .await;
    call.abort();
    seen.until(|seen| seen.cancelled.load(Ordering::SeqCst) == 1)
        .await;
    until_idle(&peer).await;
}

async fn a_deadline_cancels_and_is_inherited(over: Transport) {
    let Pair {
        work,
        seen,
        peer,
        server: _server,
        ..
    } = over.pair().await;
    // the peers know each other, so the call leaves long before its deadline
    assert_eq!(work.now().await.unwrap(), 42);
    let error = work
        .wait(1)
        .within(Duration::from_millis(250))
        .await
        .unwrap_err();
    assert!(error.is_timeout() && error.was_sent(), "{error}");
    seen.until(|seen| seen.cancelled.load(Ordering::SeqCst) == 1)
        .await;
    let (depth, has_deadline) = work
        .surroundings()
        .within(Duration::from_secs(9))
        .await
        .unwrap();
    assert!(depth == 0 && has_deadline);
    assert_eq!(work.surroundings().await.unwrap(), (0, false));
    until_idle(&peer).await;
}

async fn stubborn_methods_run_to_their_end(over: Transport) {
    let Pair {
        work,
        seen,
        peer,
        server: _server,
        ..
    } = over.pair().await;
    let call = tokio::spawn(work.stubborn(1));
    seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1)
        .await;
    call.abort();
    until_idle(&peer).await;
    work.open_gates().await.unwrap();
    seen.until(|seen| seen.finished.load(Ordering::SeqCst) == 1)
        .await;
    assert_eq!(seen.cancelled.load(Ordering::SeqCst), 0);
}

async fn stubborn_steps_of_scripts_run_to_their_end(over: Transport) {
    let Pair {
        work,
        seen,
        peer,
        server: _server,
        ..
    } = over.pair().await;
    let mut co = peer.po().co().await.unwrap();
    co.send_code("work::stubborn(1)").await.unwrap();
    let composed = work.stubborn(work.spend(0));
    let scripts = [
        "work::stubborn(1); work::stubborn(2)",
        "for gate in 1..3 { work::stubborn(gate); }",
    ];
    let scripts = scripts.map(|script| tokio::spawn(peer.script::<()>(script).send()));
    let mut calls = vec![tokio::spawn(composed.send())];
    calls.extend(scripts);
    seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 4)
        .await;
    drop(co);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    until_idle(&peer).await;
    seen.open_gates();
    seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 0)
        .await;
    assert_eq!(seen.finished.load(Ordering::SeqCst), 4);
    assert_eq!(seen.cancelled.load(Ordering::SeqCst), 0);
}

async fn stubborn_methods_are_counted(over: Transport) {
    let mut settings = Settings::default();
    settings.conversations = 3;
    let server = Options::new().settings(settings);
    let Pair {
        work,
        seen,
        peer,
        server: _server,
        ..
    } = over.pair_with(server, Options::new(), |env| env).await;
    // twice as many as may be open at once, whose callers are all gone
    for n in 1..=6 {
        let call = match n % 2 {
            0 => tokio::spawn(work.stubborn(n)),
            _ => tokio::spawn(work.stubborn(work.spend(0))),
        };
        seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == n as usize)
            .await;
        call.abort();
        until_idle(&peer).await;
    }
    for call in [work.stubborn(7), work.stubborn(work.spend(0))] {
        let error = call.await.unwrap_err();
        assert!(
            error.is_limit() && error.to_string().contains("no_cancel"),
            "{error}"
        );
    }
    seen.open_gates();
    seen.until(|seen| seen.finished.load(Ordering::SeqCst) == 6)
        .await;
    // the last of their tasks may have yet to end
    while work
        .add(20, 22)
        .await
        .map_err(|error| assert!(error.is_limit(), "{error}"))
        != Ok(42)
    {}
}

async fn ten_thousand_cancelled_calls_leave_nothing(over: Transport) {
    let Pair {
        work,
        seen,
        peer,
        server: _server,
        ..
    } = over.pair().await;
    // from here on calls leave as soon as they are sent, where the connection waited for nothing
    work.lines().await.unwrap();
    for round in 1..=10 {
        let calls: Vec<_> = (0..1000).map(|n| work.wait(n).send()).collect();
        seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1000)
            .await;
        drop(calls);
        seen.until(|seen| seen.cancelled.load(Ordering::SeqCst) == 1000 * round)
            .await;
    }
    until_idle(&peer).await;
    assert_eq!(seen.waiting.load(Ordering::SeqCst), 0);
}

async fn scripts_are_the_ones_that_were_sent(over: Transport) {
    let Pair {
        peer,
        server: _server,
        ..
    } = over.pair().await;
    let bytes = bytes::Bytes::from(vec![1; 200_000]);
    // each is used once, and the large ones are on their way while others are sent
    let one = peer.script("work::add(1, 1)").bind("bytes", bytes.clone());
    let two = peer.script("work::add(1, 2)").bind("bytes", bytes.clone());
    let small = peer.script("work::add(2, 2)");
    let (one, two, small) = tokio::join!(async { one.await }, async { two.await }, async {
        small.await
    });
    let answers: [i64; 3] = [one.unwrap(), two.unwrap(), small.unwrap()];
    assert_eq!(answers, [2, 3, 4]);

    let mut co = peer.po().co().await.unwrap();
    let large = |code: &str| Script::new(code.to_owned()).bind("bytes", bytes.clone());
    co.send_obj_of(large("work::add(1, 4)")).await.unwrap();
    co.send_obj_of("work::add(2, 4)").await.unwrap();
    co.send_obj_of(large("work::add(1, 6)")).await.unwrap();
    co.send_obj_of("work::add(2, 6)").await.unwrap();
    let mut co = co.start_recv().await.unwrap();
    for expected in [5, 6, 7, 8] {
        assert_eq!(co.recv_obj::<i64>().await.unwrap(), expected);
    }
}

async fn a_script_that_is_refused_gives_out_nothing(over: Transport) {
    let Pair {
        peer,
        server: _server,
        ..
    } = over.pair().await;
    let upload = "work::upload(\"f\", d)";
    let too_long = format!("/* {} */ {upload}", "x".repeat(100_000));
    let mut co = peer.po().co().await.unwrap();
    co.send_code("1").await.unwrap();
    let code = Script::new(too_long.clone()).bind("d", bytes_of(100));
    let error = co.send_code(code).await.unwrap_err();
    assert!(error.is_limit(), "{error}");
    let code = Script::new(upload).bind("d", bytes_of(100));
    co.send_obj_of(code).await.unwrap();
    let mut co = co.start_recv().await.unwrap();
    let (len, _): (u64, u64) = co.recv_obj().await.unwrap();
    assert_eq!(len, 100);
    drop(co);

    let mut co = peer.po().co().await.unwrap();
    co.send_code("1").await.unwrap();
    let code = Script::new(too_long).bind("d", bytes_of(100));
    co.send_code(code).await.unwrap_err();
    co.close().await.unwrap();
    until_idle(&peer).await;
}

async fn data_is_read_on_by_its_length(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    // five bytes are read, and seven: of two runs the first to its end, the other in part
    let mut co = work.recv_runs().open().await.unwrap();
    co.send_data("first").await.unwrap();
    co.send_data("then more").await.unwrap();
    let mut co = co.start_recv().await.unwrap();
    let (first, then): ([u8; 5], [u8; 7]) = co.recv_obj().await.unwrap();
    assert_eq!((&first, &then), (b"first", b"then mo"));
}

async fn data_behind_a_writer_that_failed_is_still_there(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    let co = work.send_file("some").open().await.unwrap();
    let mut co = co.start_recv().await.unwrap();
    let _announced: FileMeta = co.recv_obj().await.unwrap();
    // it takes nothing at all
    let mut full = std::io::Cursor::new(<&mut [u8]>::default());
    let error = co.recv_data_exact(&mut full, 10).await.unwrap_err();
    assert!(!error.is_remote() && !error.is_disconnected(), "{error}");
    let mut rest = vec![0; 100_000 - 10];
    co.recv_exact(&mut rest).await.unwrap();
    let all = bytes_of(100_000).to_bytes(100_000).await.unwrap();
    assert!(rest == all[10..]);
    let done: String = co.recv_obj().await.unwrap();
    assert_eq!(done, "done");
}

async fn what_is_refused_here_is_no_error_of_the_peer(over: Transport) {
    let Pair {
        work,
        peer,
        server: _server,
        ..
    } = over.pair().await;
    let mut co = work.recv_file("large").open().await.unwrap();
    let error = co.send_obj(&"x".repeat(5 << 20)).await.unwrap_err();
    assert!(
        error.is_limit() && error.blame() == Blame::Application,
        "{error:?}"
    );
    assert!(!error.is_remote() && !error.was_sent(), "{error:?}");
    drop(co);
    // its own deadline, whichever side sees it pass first
    let call = peer.script::<i64>("work::wait(1)");
    let error = call.within(Duration::from_millis(20)).await.unwrap_err();
    assert!(error.is_timeout() && error.was_sent(), "{error:?}");
    assert!(!error.is_remote(), "{error:?}");
}

async fn who_gives_up_closing_abandons(over: Transport) {
    let Pair {
        peer,
        seen,
        server: _server,
        ..
    } = over.pair().await;
    let mut co = peer.po().co().await.unwrap();
    co.send_code("work::wait(1)").await.unwrap();
    // more than the peer takes without reading it
    co.send_obj(&bytes::Bytes::from(vec![0; 3 << 20]))
        .await
        .unwrap();
    seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1)
        .await;
    let closing = co.close();
    assert!(closing.now_or_never().is_none());
    seen.until(|seen| seen.cancelled.load(Ordering::SeqCst) == 1)
        .await;
    until_idle(&peer).await;
}

async fn large_values_travel(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    let megabytes = vec![9; 3 << 20];
    let (a, b) = tokio::join!(work.echo(megabytes.clone()), work.echo(megabytes.clone()));
    assert!(a.unwrap() == megabytes && b.unwrap() == megabytes);
}

async fn limits_are_named(over: Transport) {
    let mut settings = Settings::default();
    settings.message = 100_000;
    settings.conversations = 4;
    settings.channels = 2;
    let server = Options::new().settings(settings);
    let Pair {
        work,
        peer,
        seen,
        server: _server,
        ..
    } = over.pair_with(server, Options::new(), |env| env).await;
    let error = work.echo(vec![0; 200_000]).await.unwrap_err();
    assert!(
        error.is_limit() && error.to_string().contains("Settings::message"),
        "{error}"
    );
    let streams: Vec<_> = (0..3).map(|_| hbi::Items::iter([1])).collect();
    let error = peer
        .script::<()>("f(x)")
        .bind("x", streams)
        .await
        .unwrap_err();
    assert!(
        error.is_limit() && error.to_string().contains("Settings::channels"),
        "{error}"
    );
    // beyond the conversations that may be open, calls wait for one
    let calls: Vec<_> = (0..6).map(|n| tokio::spawn(work.wait(n))).collect();
    seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 4)
        .await;
    seen.open_gates();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap(), n as u32);
    }
}

async fn answers_beyond_what_is_held_take_turns(over: Transport) {
    let mut settings = Settings::default();
    settings.held = 1 << 20;
    let server = Options::new().settings(settings);
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair_with(server, Options::new(), |env| env).await;
    let data = vec![9; 400_000];
    let calls: Vec<_> = (0..40)
        .map(|_| tokio::spawn(work.echo(data.clone())))
        .collect();
    for call in calls {
        assert!(call.await.unwrap().unwrap() == data);
    }
}

async fn large_items_beyond_what_is_held_take_turns(over: Transport) {
    let mut settings = Settings::default();
    settings.held = 8 << 20;
    let client = Options::new().settings(settings);
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair_with(Options::new(), client, |env| env).await;
    // each is larger than a stream's window, so all can be in pieces at once
    let room = "r".repeat(1_000_000);
    let streams = (0..20).map(|_| {
        let watch = work.watch(&room, 2);
        async move {
            let (mut items, mut lengths) = (watch.await.unwrap(), Vec::new());
            while let Some(item) = items.next().await {
                lengths.push(item.unwrap().room.len());
            }
            lengths
        }
    });
    let lengths = futures_util::future::join_all(streams).await;
    assert!(lengths.iter().all(|lengths| *lengths == [1_000_000; 2]));
}

async fn streams_dropped_within_an_item_disturb_nothing(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    let room = "r".repeat(1_000_000);
    for turns in 0..20 {
        let mut items = work.watch(&room, 3).await.unwrap();
        // the more turns, the more of the first is there when it is dropped
        {
            let mut first = pin!(items.next());
            for _ in 0..turns {
                if futures_util::poll!(&mut first).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        drop(items);
        assert_eq!(work.add(turns, 2).await.unwrap(), turns + 2);
    }
}

async fn streams_within_streams_are_read_in_any_order(over: Transport) {
    async fn all(mut streams: NestedItems) -> Vec<Vec<u32>> {
        let mut lists = Vec::new();
        while let Some(stream) = streams.next().await {
            let (mut stream, mut list) = (stream.unwrap(), Vec::new());
            while let Some(n) = stream.next().await {
                list.push(n.unwrap());
            }
            lists.push(list);
        }
        lists
    }
    let Pair {
        work,
        peer,
        server: _server,
        ..
    } = over.pair().await;
    let (first, second) = work.nested(2).await.unwrap();
    assert_eq!(all(second).await, [[2; 2], [3; 2]]);
    assert_eq!(all(first).await, [[0; 2], [1; 2]]);
    let (first, second) = work.nested(2).await.unwrap();
    drop(first);
    assert_eq!(all(second).await, [[2; 2], [3; 2]]);
    until_idle(&peer).await;
}

/// A stream in which nothing comes.
#[hbi::service(flat)]
trait Quiet {
    /// So many bytes, and the stream.
    async fn quiet(&self, bytes: usize) -> (Vec<u8>, hbi::Items<i64>);
}

/// Tells of each stream once it is asked for something, which is when the answer has left.
#[derive(Clone)]
struct Sources(mpsc::UnboundedSender<mpsc::Sender<i64>>);

impl Quiet for Sources {
    async fn quiet(&self, bytes: usize) -> (Vec<u8>, hbi::Items<i64>) {
        let (source, mut items) = mpsc::channel(1);
        let (told, mut source) = (self.0.clone(), Some(source));
        let items = futures_util::stream::poll_fn(move |cx| {
            if let Some(source) = source.take() {
                // a test that does not look needs no source
                let _ = told.send(source);
            }
            items.poll_recv(cx)
        });
        (vec![9; bytes], hbi::Items::stream(items))
    }
}

async fn a_stream_in_an_answer_that_nobody_took_ends(over: Transport) {
    let (told, mut sources) = mpsc::unbounded_channel();
    let sources_of = Sources(told);
    let Pair {
        work,
        peer,
        server: _server,
        ..
    } = over
        .pair_with(Options::new(), Options::new(), move |env| {
            env.service(QuietHost::new(sources_of.clone()))
        })
        .await;
    // from here on calls leave as soon as they are sent, where the connection waited for nothing
    work.lines().await.unwrap();
    let call = QuietStub::new(&peer).quiet(1).send();
    let source = sources.recv().await.unwrap();
    drop(call);
    source.closed().await;
    until_idle(&peer).await;
}

async fn answers_are_held_until_they_left_though_their_streams_go_on(over: Transport) {
    let (told, mut sources) = mpsc::unbounded_channel();
    let sources_of = Sources(told);
    let mut settings = Settings::default();
    settings.held = 10 << 20;
    let Pair {
        work,
        peer,
        server: _server,
        ..
    } = over
        .pair_with(
            Options::new().settings(settings),
            Options::new(),
            move |env| env.service(QuietHost::new(sources_of.clone())),
        )
        .await;
    let mut taken = Vec::new();
    for _ in 0..3 {
        let (bytes, items) = QuietStub::new(&peer).quiet(4_000_000).await.unwrap();
        assert_eq!(bytes.len(), 4_000_000);
        taken.push((items, sources.recv().await.unwrap()));
    }
    assert_eq!(work.add(1, 2).await.unwrap(), 3);
    for (mut items, source) in taken {
        source.send(7).await.unwrap();
        assert_eq!(items.try_next().await.unwrap(), Some(7));
    }
}

async fn room_is_used_though_some_who_waited_for_it_are_gone(over: Transport) {
    let mut settings = Settings::default();
    settings.conversations = 2;
    let server = Options::new().settings(settings);
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair_with(server, Options::new(), |env| env).await;
    // one conversation is open for good, the other as long as it is wanted
    let _items = work.endless().await.unwrap();
    let other = work.recv_file("f").open().await.unwrap();
    let gone: Vec<_> = (0..5).map(|n| tokio::spawn(work.add(n, 1))).collect();
    let last = tokio::spawn(work.add(20, 22));
    // each has its turn, and finds no room
    tokio::task::yield_now().await;
    for call in &gone {
        call.abort();
    }
    drop(other);
    let answer = tokio::time::timeout(Duration::from_secs(20), last).await;
    assert_eq!(answer.expect("there is room").unwrap().unwrap(), 42);
}

async fn who_gives_up_waiting_leaves_nothing_behind(over: Transport) {
    let mut settings = Settings::default();
    settings.conversations = 1;
    let server = Options::new().settings(settings);
    let Pair {
        work,
        peer,
        server: _server,
        ..
    } = over.pair_with(server, Options::new(), |env| env).await;
    let _items = work.endless().await.unwrap();
    let given_up = GivenUp::default();
    for _ in 0..3 {
        given_up.waits(work.add(1, 1));
        given_up.waits(work.log("line").into_future());
        given_up.waits(work.recv_file("f").open());
        given_up.waits(peer.notif("work::lines()"));
        given_up.waits(peer.wait_closed());
    }
    assert_eq!(given_up.kept(), 0);
}

async fn a_deadline_bounds_the_wait_for_room(over: Transport) {
    let mut settings = Settings::default();
    settings.conversations = 1;
    let server = Options::new().settings(settings);
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair_with(server, Options::new(), |env| env).await;
    let items = work.endless().await.unwrap();
    let patient = tokio::spawn(work.add(20, 22));
    let soon = Duration::from_millis(30);
    let error = work.add(1, 1).within(soon).await.unwrap_err();
    assert!(error.is_timeout() && !error.was_sent(), "{error}");
    let error = work.recv_file("f").within(soon).open().await.unwrap_err();
    assert!(error.is_timeout() && !error.was_sent(), "{error}");
    // it was not sent, so its time can still be set
    let error = work.add(1, 1).send().within(soon).await.unwrap_err();
    assert!(error.is_timeout() && !error.was_sent(), "{error}");
    drop(items);
    assert_eq!(patient.await.unwrap().unwrap(), 42);
}

async fn nesting_and_calls_back(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    assert_eq!(work.add_there(20, 22).await.unwrap(), 42);
}

async fn a_cut_connection_ends_every_wait(over: Transport) {
    let Pair {
        work,
        peer,
        seen,
        server,
        ..
    } = over.pair().await;
    let call = tokio::spawn(work.wait(1));
    let mut items = work.endless().await.unwrap();
    let mut co = work.recv_file("f").open().await.unwrap();
    co.send_obj(&FileMeta {
        name: "f".into(),
        size: 5,
    })
    .await
    .unwrap();
    let mut co = co.start_recv().await.unwrap();
    seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1)
        .await;
    let recv = tokio::spawn(async move { co.recv_obj::<i64>().await });
    // a goodbye whose deadline is over at once cuts what is under way
    server.shutdown(Duration::ZERO).await;
    let error = call.await.unwrap().unwrap_err();
    assert!(error.is_disconnected() && error.was_sent(), "{error}");
    assert!(recv.await.unwrap().is_err());
    let error = loop {
        match items.try_next().await {
            Ok(item) => assert!(item.is_some(), "no end that looks good"),
            Err(error) => break error,
        }
    };
    assert!(error.is_disconnected(), "{error}");
    let error = work.add(1, 1).await.unwrap_err();
    assert!(error.is_disconnected() && !error.was_sent(), "{error}");
    assert!(peer.wait_closed().await.is_disconnected());
}

async fn goodbye_lets_calls_finish(over: Transport) {
    let Pair {
        work,
        peer,
        seen,
        server: _server,
        ..
    } = over.pair().await;
    let call = tokio::spawn(work.wait(7));
    seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1)
        .await;
    let closing = tokio::spawn(peer.close(Duration::from_secs(30)));
    // the gate opens once the goodbye is on its way: new calls are refused then
    loop {
        match work.add(1, 1).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break assert!(!error.was_sent(), "{error}"),
        }
    }
    seen.open_gates();
    assert_eq!(call.await.unwrap().unwrap(), 7);
    closing.await.unwrap().unwrap();
}

async fn after_a_shutdown_calls_are_told(over: Transport) {
    let Pair {
        work,
        seen,
        server,
        peer: _peer,
        ..
    } = over.pair().await;
    let call = tokio::spawn(work.wait(7));
    seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1)
        .await;
    let shutdown = tokio::spawn(server.shutdown(Duration::from_secs(30)));
    let error = loop {
        match work.add(1, 1).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(error.is_not_landed(), "{error}");
    seen.open_gates();
    assert_eq!(call.await.unwrap().unwrap(), 7);
    shutdown.await.unwrap();
}

async fn one_reader_that_stands_still_stops_nobody_else(over: Transport) {
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = over.pair().await;
    let mut still = work.endless().await.unwrap();
    let (_, mut data) = work.download("f", 1 << 30).await.unwrap();
    assert!(still.try_next().await.unwrap().is_some());
    assert!(data.try_next().await.unwrap().is_some());
    for n in 0..100 {
        assert_eq!(work.add(n, 1).await.unwrap(), n + 1);
    }
    let (_, other) = work.download("f", 1_000_000).await.unwrap();
    assert_eq!(other.to_bytes(usize::MAX).await.unwrap().len(), 1_000_000);
}

/// Waits until no conversation is open at this side.
async fn until_idle(peer: &hbi::Connection) {
    while peer.conversations() != (0, 0) {
        tokio::task::yield_now().await;
        // gives a transport of the kernel's its turn
        let _: Result<i64, _> = peer.script("work::add(1, 1)").await;
    }
}
