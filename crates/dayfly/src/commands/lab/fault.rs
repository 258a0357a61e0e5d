//! `dayfly lab fault add|list|clear`: orders failures of a lab that runs on this host.
//!
//! The lab proves by its files that it runs here, and the file of its token, which only its owner and root may read, makes this
//! command its admin.

use dayfly_forge::{ApiBase, Forge};
use dayfly_lab::fault::{FaultSpec, Trigger};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{FaultAddArgs, LabFaultArgs, LabFaultCommand};
use crate::exit::{Failure, Outcome, Result};
use crate::printer;

/// A rule, as the lab writes it.
#[derive(Debug, Deserialize)]
struct Row {
    id: u64,
    fault: String,
    on: Option<String>,
    trigger: Trigger,
    for_s: Option<u64>,
    value: Option<u64>,
    seen: u64,
    fired: u64,
    is_over: bool,
}

pub(crate) async fn run(args: LabFaultArgs) -> Result<Outcome> {
    let LabFaultArgs { lab, json, command } = args;
    let command = match command {
        LabFaultCommand::Add(order) => Command::Add(spec(&order)?),
        LabFaultCommand::List => Command::List,
        LabFaultCommand::Clear { name } => Command::Clear(name.map(dayfly_lab::fault::Fault::name)),
    };
    let url = lab.ok_or_else(|| {
        Failure::usage("no lab is named: give --lab and the address that `dayfly lab serve` has printed")
    })?;
    let admin = admin_of(&url).await?;
    let answer = match command {
        Command::Add(spec) => admin.add_lab_fault(json!(spec)).await,
        Command::List => admin.lab_faults().await,
        Command::Clear(name) => admin.clear_lab_faults(name).await.map(|count| json!({ "cleared": count })),
    };
    let answer = answer.map_err(Failure::cannot)?;
    if json {
        printer::json(&answer);
    } else {
        show(&answer)?;
    }
    Ok(Outcome::Success)
}

/// A checked command.
enum Command {
    Add(FaultSpec),
    List,
    Clear(Option<&'static str>),
}

/// Returns the order that the options describe.
fn spec(args: &FaultAddArgs) -> Result<FaultSpec> {
    let trigger = match (args.count, args.probability) {
        (Some(count), _) => Trigger::Count(count),
        (None, Some(chance)) => Trigger::Probability(chance),
        (None, None) => Trigger::Always,
    };
    let spec = FaultSpec { fault: args.name, on: args.on, trigger, for_s: args.for_s, value: args.value };
    spec.check().map_err(Failure::usage)?;
    Ok(spec)
}

/// Returns a client with the admin token of the lab at this address.
async fn admin_of(url: &str) -> Result<Forge> {
    let base = ApiBase::from_host_or_url(url).map_err(Failure::usage)?;
    let stranger = Forge::new(base, "").map_err(Failure::cannot)?;
    let admin = stranger.as_admin_of_lab().await.map_err(Failure::cannot)?;
    admin.ok_or_else(|| {
        Failure::cannot(format!(
            "{url} does not prove that it is a lab of this host whose token this user may read"
        ))
        .hint("run this command on the host of `dayfly lab serve`, as the same user or as root")
    })
}

fn show(answer: &Value) -> Result<()> {
    if let Some(count) = answer["cleared"].as_u64() {
        printer::line(format_args!("cleared {count}"));
        return Ok(());
    }
    let rules = match answer["rules"].as_array() {
        Some(rules) => rules.clone(),
        None => vec![answer.clone()],
    };
    let rows: serde_json::Result<Vec<Row>> = rules.into_iter().map(serde_json::from_value).collect();
    let rows =
        rows.map_err(|error| Failure::cannot(format!("the lab's answer is not understood: {error}")))?;
    let head = ["ID", "FAULT", "ON", "WHEN", "FOR", "VALUE", "SEEN", "HAPPENED", "STATE"];
    printer::table(head, rows.iter().map(cells));
    if let Some(seed) = answer["seed"].as_u64() {
        printer::line(format_args!("the seed is {seed}"));
    }
    Ok(())
}

fn cells(row: &Row) -> [String; 9] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let when = match row.trigger {
        Trigger::Always => "always".to_owned(),
        Trigger::Count(count) => format!("the next {count}"),
        Trigger::Probability(chance) => format!("with probability {chance}"),
    };
    [
        row.id.to_string(),
        row.fault.clone(),
        or_dash(row.on.clone()),
        when,
        or_dash(row.for_s.map(|seconds| format!("{seconds} s"))),
        or_dash(row.value.map(|value| value.to_string())),
        row.seen.to_string(),
        row.fired.to_string(),
        if row.is_over { "over" } else { "in force" }.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, LabCommand};
    use crate::test_forge::TestLab;

    fn parsed(words: &str) -> std::result::Result<LabFaultArgs, String> {
        let words = ["dayfly", "lab", "fault"].into_iter().chain(words.split(' '));
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        match cli.command {
            crate::cli::Command::Lab(LabCommand::Fault(args)) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_options_are_an_order() {
        let order = |words: &str| match parsed(words).expect("options").command {
            LabFaultCommand::Add(args) => spec(&args).map(|spec| spec.to_string()),
            other => panic!("{other:?}"),
        };
        let full = "--lab http://h add drop-reply --on generate-jitconfig --count 2 --for 5m";
        assert_eq!(order(full).expect("good"), "drop-reply,on=generate-jitconfig,count=2,for=300s");
        let chance = "add server-error --probability 0.5 --value 502 --lab http://h --json";
        assert_eq!(order(chance).expect("good"), "server-error,probability=0.5,value=502");
        let wrong = order("add busy-delete --on session").expect_err("a deletion is no session").to_string();
        assert!(wrong.contains("it can happen on delete-runner"), "{wrong}");
    }

    #[test]
    fn a_wrong_name_leads_to_the_nearest() {
        let error = parsed("add drop-relpy").expect_err("no such fault");
        assert!(error.contains("there is no fault \"drop-relpy\" (did you mean \"drop-reply\"?)"), "{error}");
        let error = parsed("add drop-reply --on sesion").expect_err("no such operation");
        assert!(error.contains("there is no operation \"sesion\" (did you mean \"session\"?)"), "{error}");
        assert!(parsed("add drop-reply --count 1 --probability 0.5").is_err());
    }

    #[tokio::test]
    async fn a_fault_is_ordered_listed_and_cleared_at_a_lab_of_this_host() {
        let lab = TestLab::start().await;
        for words in ["add drop-reply --count 1", "list", "clear drop-reply", "list --json"] {
            let args = parsed(&format!("{words} --lab {}", lab.url)).expect("options");
            assert_eq!(run(args).await.expect("done"), Outcome::Success, "{words}");
        }
        let admin = admin_of(&lab.url).await.expect("the admin");
        assert_eq!(admin.lab_faults().await.expect("the rules")["rules"], json!([]));
    }

    #[tokio::test]
    async fn a_lab_must_be_named_and_be_one() {
        let failure = run(parsed("list").expect("options")).await.expect_err("no lab");
        assert!(failure.to_string().starts_with("no lab is named"), "{failure}");
        let other = crate::test_forge::TestForge::start(|_| (404, Vec::new(), json!({}))).await;
        let failure = run(parsed(&format!("list --lab {}", other.url)).expect("options")).await;
        let failure = failure.expect_err("no lab");
        assert!(failure.to_string().contains("does not prove that it is a lab of this host"), "{failure}");
    }
}
