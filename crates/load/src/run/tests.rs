use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::*;

/// A server that answers each request after asking `answer`, which gets the number of the request on its connection.
fn server(answer: impl Fn(u32, &mut TcpStream) -> bool + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                let mut count = 0;
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                    count += 1;
                    if !answer(count, &mut stream) {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn ok(stream: &mut TcpStream) -> bool {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_ok()
}

fn stream(
    name: &str,
    address: SocketAddr,
    arrivals: Arrivals,
    connections: usize,
    timeout: Option<Duration>,
) -> Stream {
    let requests = vec![Request::post(address, "/", "key", 0, b"x", timeout)];
    Stream { name: name.to_owned(), address, requests, arrivals, connections, late_after: None }
}

fn run_for(streams: Vec<Stream>, duration: Duration) -> Vec<StreamReport> {
    let plan = Plan { streams, warmup: Duration::ZERO, duration };
    run(&plan, &Arc::default()).unwrap().tenants
}

#[test]
fn open_and_closed_streams_run_side_by_side_and_are_reported_in_order() {
    let address = server(|_, stream| ok(stream));
    let streams = vec![
        stream("flood", address, Arrivals::Closed, 3, None),
        stream("paced", address, Arrivals::Constant { per_second: 100.0 }, 4, Some(Duration::from_secs(5))),
    ];
    let reports = run_for(streams, Duration::from_millis(300));
    assert_eq!((reports[0].name.as_str(), reports[1].name.as_str()), ("flood", "paced"));
    assert!(reports[0].answered > 0 && reports[0].refusals() + reports[0].failures() == 0);
    assert_eq!((reports[1].due, reports[1].answered, reports[1].late), (30, 30, 0));
}

#[test]
fn what_waits_for_a_connection_counts_from_when_it_was_due() {
    // One connection that takes 40 ms for each answer, and twenty requests due in 200 ms: the last waits over half a second.
    let slow = server(|_, stream| {
        std::thread::sleep(Duration::from_millis(40));
        ok(stream)
    });
    let streams = vec![stream("a", slow, Arrivals::Constant { per_second: 100.0 }, 1, None)];
    let reports = run_for(streams, Duration::from_millis(200));
    assert_eq!((reports[0].due, reports[0].answered), (20, 20));
    assert!(reports[0].latency.max() >= Duration::from_millis(600), "{:?}", reports[0].latency.max());
}

#[test]
fn what_cannot_be_sent_before_its_timeout_is_given_up_and_counted() {
    let slow = server(|_, stream| {
        std::thread::sleep(Duration::from_millis(40));
        ok(stream)
    });
    let timeout = Some(Duration::from_millis(60));
    let streams = vec![stream("a", slow, Arrivals::Constant { per_second: 100.0 }, 1, timeout)];
    let report = run_for(streams, Duration::from_millis(200)).remove(0);
    assert_eq!(report.due, 20);
    assert!(report.unsent > 5, "{report:?}");
    assert_eq!(report.answered + report.unsent, 20);
    assert!(report.in_time() < 0.5);
}

#[test]
fn refusals_and_broken_connections_are_told_apart_and_survived() {
    let moody = server(|count, stream| match count % 3 {
        0 => {
            let body = br#"{"error": "wait", "reason": "request_rate"}"#;
            let head = format!("HTTP/1.1 429 Too Many Requests\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).is_ok() && stream.write_all(body).is_ok()
        }
        1 => ok(stream),
        _ if count < 5 => ok(stream),
        _ => false,
    });
    let streams = vec![stream("a", moody, Arrivals::Constant { per_second: 200.0 }, 1, None)];
    let report = run_for(streams, Duration::from_millis(200)).remove(0);
    assert_eq!(report.due, 40);
    assert!(report.refused["request_rate"] >= 4 && report.failed["connection_broke"] >= 4, "{report:?}");
    assert_eq!(report.answered + report.refusals() + report.failures(), 40);
}

#[test]
fn a_plan_that_makes_no_sense_is_refused_before_anything_is_sent() {
    let address = "127.0.0.1:9".parse().unwrap();
    for bad in [
        stream("a", address, Arrivals::Constant { per_second: 0.0 }, 1, None),
        stream("a", address, Arrivals::Poisson { per_second: f64::NAN, seed: 1 }, 1, None),
        stream("a", address, Arrivals::Closed, 0, None),
    ] {
        let plan = Plan { streams: vec![bad], warmup: Duration::ZERO, duration: Duration::from_millis(1) };
        assert!(matches!(run(&plan, &Arc::default()), Err(RunError::Plan { .. })));
    }
}

#[test]
fn a_server_that_is_not_there_is_said_so() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let streams = vec![
        stream("a", address, Arrivals::Closed, 1, None),
        stream("b", address, Arrivals::Constant { per_second: 1.0 }, 1, None),
    ];
    let plan = Plan { streams, warmup: Duration::ZERO, duration: Duration::from_millis(10) };
    let error = run(&plan, &Arc::default()).unwrap_err();
    assert!(matches!(error, RunError::Connect(_)) && error.to_string().contains("start it"), "{error}");
}
