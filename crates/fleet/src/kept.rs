//! Keeps the machines that are kept within their time and their space, while a process runs loops.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use dayfly_host::space::free_mib;
use dayfly_vm::VmHost;
use dayfly_vm::kept::{self, Collected, KeptMachine, KeptRoom};
use tokio::runtime::Handle;

/// Time between two looks.
const PACE: Duration = Duration::from_secs(60);

/// Removes machines whose time is over, and the oldest ones if they take too much space, until it is dropped. `tell`
/// gets each machine that is gone, and each new trouble, in words.
pub async fn keep_up(host: &VmHost, mut tell: impl FnMut(&str)) -> Infallible {
    let mut trouble = None;
    loop {
        match collect(host).await {
            Ok(gone) => {
                gone.iter().for_each(|gone| tell(gone));
                trouble = None;
            }
            Err(error) if trouble.as_ref() != Some(&error) => {
                tell(&error);
                trouble = Some(error);
            }
            Err(_) => {}
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Looks once. Returns the machines that are gone, in words.
pub(crate) async fn collect(host: &VmHost) -> Result<Vec<String>, String> {
    let (state, reserve_mib) = (host.state.clone(), host.disk_reserve_mib());
    let bytes_max = host.kept_max_mib().saturating_mul(1 << 20);
    // On a thread of its own, because a file of gigabytes takes the kernel a while to remove.
    let looking = tokio::task::spawn_blocking(move || {
        // Jobs come first: their machines do not start while less than the reserve is free.
        let free_mib =
            free_mib(&state).map_err(|error| format!("the space of {}: {error}", state.display()))?;
        let missing = reserve_mib.saturating_sub(free_mib).saturating_mul(1 << 20);
        let collecting = kept::collect(&state, KeptRoom { bytes_max, missing });
        Handle::current().block_on(collecting).map_err(|error| error.to_string())
    });
    let Collected { machines, damaged } = looking.await.map_err(|error| error.to_string())??;
    let of_machine = |machine: &KeptMachine| {
        format!("the machine of {}, whose job had failed, is kept no longer", machine.manifest().about.name)
    };
    let of_folder = |folder: &PathBuf| {
        format!("{} was removed: it has no description of a kept machine that can be read", folder.display())
    };
    Ok(machines.iter().map(of_machine).chain(damaged.iter().map(of_folder)).collect())
}
