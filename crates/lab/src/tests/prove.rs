//! Tests that the lab proves to the client that it runs on this host.

use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use dayfly_forge::{ApiBase, Forge, ProvenLab};
use tokio::net::TcpListener;

use crate::{Lab, LabSettings};

async fn ask(url: &str) -> Option<ProvenLab> {
    Forge::new(ApiBase::from_host_or_url(url).unwrap(), "the-token").unwrap().prove_lab().await.unwrap()
}

async fn serve(lab: Lab) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { lab.serve(listener, std::future::pending()).await.unwrap() });
    address
}

#[tokio::test]
async fn a_lab_on_this_host_proves_itself() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::open(LabSettings::new(folder.path())).unwrap();
    let address = serve(lab).await;
    let proven = ask(&format!("http://{address}")).await.unwrap();
    assert_eq!(proven.runner_url, format!("http://10.0.2.2:{}", address.port()));
}

#[tokio::test]
async fn a_lab_proves_itself_while_it_is_busy_and_its_queue_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = LabSettings::new(folder.path());
    settings.limits.requests_waiting_max = 8;
    let lab = Lab::open(settings).unwrap();
    let address = serve(lab.clone()).await;
    let url = format!("http://{address}");
    ask(&url).await.unwrap();
    // The lab works on one call until `release` is dropped, and others wait, as many as may.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (begun, begins) = tokio::sync::oneshot::channel();
    let working = lab.inner.hub.ask(move |_| {
        let _ = begun.send(());
        let _ = held.recv();
    });
    let busy = async {
        begins.await.unwrap();
        let mut waiting = Vec::new();
        let refused = loop {
            let mut call = Box::pin(lab.inner.hub.ask(|_| ()));
            match std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await {
                Poll::Ready(refused) => break refused,
                Poll::Pending => waiting.push(call),
            }
        };
        assert_eq!(refused.unwrap_err().status, 503);
        let proven = tokio::time::timeout(Duration::from_secs(10), ask(&url)).await;
        drop(release);
        proven
    };
    let (worked, proven) = tokio::join!(working, busy);
    worked.unwrap();
    assert!(proven.expect("an answer meanwhile").is_some());
}

#[tokio::test]
async fn a_lab_whose_token_was_given_to_it_proves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = LabSettings { token: Some("given".into()), ..LabSettings::new(folder.path()) };
    let address = serve(Lab::open(settings).unwrap()).await;
    assert!(ask(&format!("http://{address}")).await.is_none());
}
