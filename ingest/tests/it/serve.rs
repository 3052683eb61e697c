//! The service on a real listener: both versions of HTTP, and its end.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use whence_ingest::IngestConfig;

use crate::sender::{config, enrolled, events};

struct Service {
    url: String,
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

async fn start(config: IngestConfig) -> Service {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(whence_ingest::serve(config, listener, shutdown.clone()));
    Service { url, shutdown, task }
}

fn post(client: &reqwest::Client, url: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
    let request = client.post(format!("{url}/v1/batches"));
    request.header("content-type", "application/x-protobuf").header("content-encoding", "zstd").body(body)
}

#[tokio::test]
async fn both_versions_of_http_are_spoken() {
    let (database, _, mut collector) = enrolled("http").await;
    let service = start(config(&database)).await;
    for client in
        [reqwest::Client::builder().http1_only(), reqwest::Client::builder().http2_prior_knowledge()]
    {
        let client = client.no_proxy().build().unwrap();
        let bytes = whence_wire::encode(&collector.batch(1)).unwrap();
        let answer = post(&client, &service.url, bytes).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        // A body that is too large is refused, not cut off.
        let answer = post(&client, &service.url, vec![0_u8; 20 << 20]).send().await.unwrap();
        assert_eq!(answer.status(), 413);
    }
    service.shutdown.cancel();
    service.task.await.unwrap().unwrap();
    assert_eq!(events(&database).await, 2);
}

/// Starts a request whose body ends when the sender is dropped, and returns when the service works on it.
async fn begin(
    service: &Service,
    bytes: Vec<u8>,
) -> (tokio::sync::oneshot::Sender<()>, JoinHandle<Option<u16>>) {
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let start = futures::stream::once(async move { Ok::<_, std::io::Error>(Bytes::from(bytes)) });
    let rest = futures::stream::once(async {
        ended.await.ok();
        Ok(Bytes::new())
    });
    let body = reqwest::Body::wrap_stream(futures::StreamExt::chain(start, rest));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = post(&client, &service.url, body);
    let answer =
        tokio::spawn(async move { request.send().await.ok().map(|answer| answer.status().as_u16()) });
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let url = format!("{}/metrics", service.url);
        let text = client.get(url).send().await.unwrap().text().await.unwrap();
        if text.contains("whence_ingest_requests_in_flight 1") {
            return (end, answer);
        }
        assert!(Instant::now() < deadline, "{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_request_under_way_ends_before_the_service() {
    let (database, _, mut collector) = enrolled("drain").await;
    let service = start(config(&database)).await;
    let (end, answer) = begin(&service, whence_wire::encode(&collector.batch(3)).unwrap()).await;
    service.shutdown.cancel();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while client.get(format!("{}/live", service.url)).send().await.is_ok() {
        assert!(Instant::now() < deadline, "the service still takes in connections");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(end);
    assert_eq!(answer.await.unwrap(), Some(200));
    service.task.await.unwrap().unwrap();
    assert_eq!(events(&database).await, 3);
}

#[tokio::test]
async fn a_request_that_does_not_end_does_not_hold_up_the_end() {
    let (database, _, mut collector) = enrolled("drain_deadline").await;
    let service = start(IngestConfig { drain: Duration::from_millis(100), ..config(&database) }).await;
    let (_end, _answer) = begin(&service, whence_wire::encode(&collector.batch(3)).unwrap()).await;
    service.shutdown.cancel();
    let error = service.task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("did not end"), "{error}");
}
