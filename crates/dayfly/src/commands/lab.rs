//! `dayfly lab serve`: runs the built-in forge as a separate server.

pub(crate) mod fault;
pub(crate) mod soak;

use dayfly_lab::{Lab, LabSettings, TOKEN_FILE};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::sync::oneshot;

use crate::cli::LabServeArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, paint, style};
use crate::signals::Signals;

pub(crate) async fn serve(args: LabServeArgs) -> Result<Outcome> {
    let mut signals = Signals::take_over()?;
    let settings = LabSettings {
        runner_url: args.runner_url,
        fault_seed: args.fault_seed,
        faults: args.faults,
        ..LabSettings::new(&args.data)
    };
    let lab = Lab::open(settings).map_err(Failure::cannot)?;
    let listener = tokio::net::TcpListener::bind(args.listen).await.map_err(|error| {
        let failure = Failure::cannot(format!("cannot listen on {}: {error}", args.listen));
        if error.kind() == std::io::ErrorKind::AddrInUse {
            failure.hint("another server has this port; take another one, or port 0 for a free one")
        } else {
            failure
        }
    })?;
    let url = format!("http://{}", listener.local_addr().map_err(Failure::cannot)?);
    if args.json {
        printer::json(&json!({ "event": "listening", "url": url, "token": lab.token().expose_secret() }));
    } else {
        printer::line(format_args!("the lab listens on {}", paint(style::NAME, &url)));
        printer::line(format_args!(
            "its token is in {}",
            paint(style::NAME, args.data.join(TOKEN_FILE).display())
        ));
    }
    let (shutdown, ended) = oneshot::channel::<()>();
    let serving = lab.serve(listener, async {
        let _ = ended.await;
    });
    tokio::pin!(serving);
    let signal = tokio::select! {
        served = &mut serving => {
            return match served {
                Ok(()) => Err(Failure::cannot("the lab has stopped unexpectedly")),
                Err(error) => Err(Failure::cannot(error)),
            };
        }
        signal = signals.next() => signal,
    };
    let _ = shutdown.send(());
    tokio::select! {
        _ = &mut serving => {}
        _ = signals.next() => {}
    }
    Ok(Outcome::StoppedBy(signal))
}
