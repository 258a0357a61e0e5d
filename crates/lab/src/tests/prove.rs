//! Tests that the lab proves to the client that it runs on this host.

use std::net::SocketAddr;

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
async fn a_lab_whose_token_was_given_to_it_proves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = LabSettings { token: Some("given".into()), ..LabSettings::new(folder.path()) };
    let address = serve(Lab::open(settings).unwrap()).await;
    assert!(ask(&format!("http://{address}")).await.is_none());
}
