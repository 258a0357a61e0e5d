//! `dayfly man FOLDER`: writes a man page for each command, from the definitions that `--help` prints.

use std::path::Path;

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::exit::{Failure, Outcome, Result};

/// Writes the pages.
///
/// # Errors
/// The folder or a page cannot be written.
pub(crate) fn run(folder: &Path) -> Result<Outcome> {
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| pages().into_iter().try_for_each(|page| page.generate_to(folder).map(drop)));
    written.map_err(|error| Failure::cannot(format!("cannot write to {}: {error}", folder.display())))?;
    Ok(Outcome::Success)
}

/// Returns the pages of all commands that users see. They have no date, so that the same program always writes the same pages.
fn pages() -> Vec<Man> {
    let mut whole = Cli::command();
    whole.build();
    let mut pages = Vec::new();
    collect(&whole, &mut pages);
    pages
}

fn collect(command: &clap::Command, pages: &mut Vec<Man>) {
    let source = concat!("dayfly ", env!("CARGO_PKG_VERSION"));
    pages.push(Man::new(command.clone()).source(source).manual("dayfly"));
    let visible = command.get_subcommands().filter(|command| !command.is_hide_set());
    visible.for_each(|command| collect(command, pages));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(page: &Man) -> String {
        let mut bytes = Vec::new();
        page.render(&mut bytes).expect("written to memory");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn each_command_that_help_lists_has_a_page_and_internal_ones_have_none() {
        let names: Vec<String> = pages().iter().map(Man::get_filename).collect();
        for name in ["dayfly.1", "dayfly-orchestrator.1", "dayfly-lab-fault-add.1", "dayfly-man.1"] {
            assert!(names.iter().any(|one| one == name), "{name}: {names:?}");
        }
        assert!(
            !names.iter().any(|name| name.contains("vmm-launch") || name.contains("runner-app")),
            "{names:?}"
        );
    }

    #[test]
    fn a_page_has_the_options_of_the_help_with_their_variables() {
        let page = pages().into_iter().find(|page| page.get_filename() == "dayfly-pause.1").expect("a page");
        insta::assert_snapshot!(text(&page));
    }

    #[test]
    fn the_pages_are_written_to_a_folder_that_did_not_exist() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("share/man/man1");
        run(&target).expect("written");
        let written = std::fs::read_to_string(target.join("dayfly-runner.1")).expect("a page");
        assert!(written.contains("RUNNER_LABELS") && written.starts_with(".ie"), "{written}");
        let refused = run(Path::new("/proc/man")).expect_err("not there");
        assert!(refused.to_string().starts_with("cannot write to /proc/man: "), "{refused}");
    }
}
