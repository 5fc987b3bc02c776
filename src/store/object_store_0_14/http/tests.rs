use super::*;
use crate::error::{Error, Retry};
use crate::store::object_store_0_14::errors::told;
use futures::executor::block_on;
use http_body::Body;
use object_store::client::HttpRequestBody;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;

const STALL: Duration = Duration::from_millis(100);

/// A server that treats its only connection like this.
#[allow(clippy::disallowed_methods, reason = "a server is another process, or nearly so")]
fn server(treat: impl FnOnce(TcpStream) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a", listener.local_addr().unwrap());
    (url, std::thread::spawn(move || treat(listener.accept().unwrap().0)))
}

fn answer_with(head: &'static str, body: &'static str) -> (String, JoinHandle<()>) {
    server(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]).unwrap();
        write!(stream, "HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    })
}

/// What comes of one request.
fn ask(url: &str, body: HttpRequestBody) -> Result<Vec<u8>, Error> {
    let options = ClientOptions::new().with_allow_http(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let client = Connector::default().stall_after(STALL).connect(&options).unwrap();
        let request = http::Request::put(url).header("content-length", body.content_length()).body(body).unwrap();
        client.execute(request).await?.into_body().bytes().await
    });
    let failed = |error| told("asking", object_store::Error::Generic { store: "test", source: Box::new(error) });
    answer.map(Vec::from).map_err(failed)
}

#[test]
fn what_a_server_says_is_told() {
    let (url, server) = answer_with("503 Slow Down\r\nretry-after: 7", "<Error><Code>SlowDown</Code></Error>");
    let error = ask(&url, HttpRequestBody::empty()).unwrap_err();
    server.join().unwrap();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Throttled, Retry::After(Duration::from_secs(7))));
    let cause = error.source().unwrap().to_string();
    assert_eq!(cause, "the server answered 503 SlowDown");
}

#[test]
fn an_explanation_that_repeats_what_was_sent_is_not_told() {
    let (url, server) = answer_with(
        "403 Forbidden",
        "<Error><Code>SignatureDoesNotMatch</Code><CanonicalRequest>x-amz-security-token:hush</CanonicalRequest></Error>",
    );
    let error = ask(&url, HttpRequestBody::empty()).unwrap_err();
    server.join().unwrap();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Denied, Retry::Never));
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
}

#[test]
fn a_redirect_is_not_followed() {
    let (url, server) = answer_with("301 Moved\r\nlocation: http://127.0.0.1:1/", "");
    let error = ask(&url, HttpRequestBody::empty()).unwrap_err();
    server.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.source().unwrap().to_string().contains("region"), "{error:?}");
}

#[test]
fn a_server_that_takes_nothing_is_given_up() {
    let (sender, receiver) = mpsc::channel();
    let (url, server) = server(move |stream| {
        // It reads nothing until the other side is done.
        receiver.recv().unwrap();
        drop(stream);
    });
    // More than buffers hold.
    let error = ask(&url, HttpRequestBody::from(vec![0; 64 << 20])).unwrap_err();
    sender.send(()).unwrap();
    server.join().unwrap();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Backoff));
    assert!(error.source().unwrap().to_string().contains("stalled"), "{error:?}");
}

#[test]
fn a_server_that_stops_in_the_middle_of_its_answer_is_given_up() {
    let (sender, receiver) = mpsc::channel();
    let (url, server) = server(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").unwrap();
        receiver.recv().unwrap();
    });
    let error = ask(&url, HttpRequestBody::empty()).unwrap_err();
    sender.send(()).unwrap();
    server.join().unwrap();
    assert!(error.source().unwrap().to_string().contains("stalled"), "{error:?}");
}

#[test]
fn an_answer_that_is_cut_off_is_an_error_and_not_the_octets_that_came() {
    let (url, server) = server(|mut stream| {
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").unwrap();
    });
    let error = ask(&url, HttpRequestBody::empty()).unwrap_err();
    server.join().unwrap();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Backoff));
}

#[test]
fn what_moves_is_waited_for_however_long_it_takes() {
    let moving = Moving::default();
    let mut body = moving.count(HttpRequestBody::from(vec![0; 20]));
    let mut polls = 0;
    // It wakes nobody: whenever it is polled, a stall's time is over, and something has moved.
    let work = std::future::poll_fn(|context| {
        polls += 1;
        let _ = std::pin::Pin::new(&mut body).poll_frame(context);
        body = moving.count(HttpRequestBody::from(vec![0; 20]));
        if polls == 5 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    assert_eq!(block_on(unless_stalled(Duration::from_millis(1), &moving, work)), Some(()));
    assert_eq!(block_on(unless_stalled(Duration::from_millis(1), &moving, std::future::pending::<()>())), None);
}

#[test]
fn nobody_there_is_worth_a_retry_and_http_that_is_not_allowed_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(ask(&url, HttpRequestBody::empty()).unwrap_err().kind(), ErrorKind::Unavailable);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Connector::default().connect(&ClientOptions::new()).unwrap();
    let request = || http::Request::get(&url).body(HttpRequestBody::empty()).unwrap();
    let refused = runtime.block_on(client.execute(request())).unwrap_err();
    let refused = told("asking", object_store::Error::Generic { store: "test", source: Box::new(refused) });
    assert_eq!((refused.kind(), refused.retry()), (ErrorKind::Invalid, Retry::Never));
    // Without a runtime it is an error, and no panic.
    let error = block_on(client.execute(request())).unwrap_err();
    assert!(error.to_string().contains("tokio runtime"), "{error}");
}
