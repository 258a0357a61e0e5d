//! `dayfly demo`: a workflow file, run in machines of this host, dispatched by a lab that lives as long as the run.
//!
//! ```text
//!   request (file, inputs, secrets: checked before anything is made)
//!     -> setup (image, instance, lab, run dispatched)
//!     -> follow (lab events + runner events + signals -> slots -> loops)
//!     -> end (loops ended, leftovers looked for, lab and folder gone, table and verdict)
//! ```

mod follow;
mod phases;
mod request;
mod setup;
mod slots;
mod view;

use crate::cli::DemoArgs;
use crate::exit::{Outcome, Result};
use crate::settings::Places;
use crate::signals::Signals;

use self::request::Request;
use self::setup::Demo;
use self::view::View;

pub(crate) async fn run(places: &Places, args: DemoArgs) -> Result<Outcome> {
    let mut signals = Signals::take_over()?;
    let view = View::new(args.json);
    let request = Request::read(&args)?;
    let setup = Demo::set_up(places, &args, request, view);
    let demo = tokio::select! {
        demo = setup => demo?,
        // What has been made so far is let go, and removes itself.
        signal = signals.next() => return Ok(Outcome::StoppedBy(signal)),
    };
    demo.follow(&mut signals).await
}
