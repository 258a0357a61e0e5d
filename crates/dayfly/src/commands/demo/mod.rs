//! `dayfly demo`: runs a workflow file in machines of this host. A lab that lives as long as the run dispatches it.
//!
//! ```text
//!   request (file, inputs, secrets: checked before anything is created)
//!     -> setup (image, instance, lab, run dispatched)
//!     -> follow (lab events -> demand of a pool; facts of its runners and signals -> view)
//!     -> end (pool ended, leftovers checked, lab and folder removed, table and conclusion)
//! ```
//!
//! The demo is one pool whose demand is the run at the lab, and a view of it.

mod follow;
mod notes;
mod phases;
mod request;
mod setup;
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
        // Dropping the unfinished set-up removes what it has created.
        signal = signals.next() => return Ok(Outcome::StoppedBy(signal)),
    };
    demo.follow(&mut signals).await
}
