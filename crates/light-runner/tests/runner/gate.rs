//! A gate before a lab, which can be shut: then each request is answered with 503 or its connection is cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Gate {
    pub(crate) url: String,
    shut: watch::Sender<bool>,
    refused: Arc<AtomicU32>,
}

impl Gate {
    pub(crate) async fn before(url: &str) -> Self {
        let lab = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let (shut, state) = watch::channel(false);
        let refused = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&refused);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if *state.borrow() {
                    count.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(refuse(stream));
                } else {
                    tokio::spawn(pass(stream, lab.clone(), state.clone()));
                }
            }
        });
        Self { url: own, shut, refused }
    }

    pub(crate) fn shut(&self, shut: bool) {
        self.shut.send_replace(shut);
    }

    /// Returns how many connections were refused.
    pub(crate) fn refused(&self) -> u32 {
        self.refused.load(Ordering::SeqCst)
    }
}

async fn pass(mut stream: TcpStream, lab: String, mut shut: watch::Receiver<bool>) {
    let mut lab = TcpStream::connect(lab).await.unwrap();
    tokio::select! {
        _ = copy_bidirectional(&mut stream, &mut lab) => {}
        _ = shut.wait_for(|shut| *shut) => {}
    }
}

async fn refuse(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 4096]).await;
    let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let _ = stream.write_all(answer).await;
}
