//! The text of a generated file.

use super::Plan;
use crate::config::{DemandWord, ScopeWord, schema};
use crate::defaults;

/// The column of comments behind values.
const COMMENT_COLUMN: usize = 32;

/// The server for webhooks, if one feeds the pool.
const WEBHOOK: &str = r#"
# The server for the webhook, which docs/scale-sets.md tells how to create at the forge.
[webhook]
listen = "127.0.0.1:9440"	# behind a proxy with TLS; or another address with cert_file and key_file
secret_file = "/etc/dayfly/webhook-secret"	# of mode 0600
"#;

/// The sizes, for a pool that can have some.
const SIZES: &str = "# sizes = [\"dayfly-4cpu-8gb\"]\t# other sizes, for jobs with such a label alone: runs-on: dayfly-4cpu-8gb\n";

/// Returns a text as a TOML string. JSON writes strings as TOML reads them.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// Returns the text of the file.
pub(super) fn render(plan: &Plan) -> String {
    let Plan { scope, demand, max, .. } = plan;
    let credential: String =
        plan.credential.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let (forge, principal, pool) = (quoted(&plan.forge), quoted(&plan.principal), quoted(&plan.pool));
    let table = table_name(&plan.pool);
    let (demand_value, webhook) = match demand {
        // A repository has lists of jobs, in which the jobs of lost deliveries are.
        DemandWord::Webhook if *scope == ScopeWord::Repo => (r#"["webhook", "poll"]"#.to_owned(), WEBHOOK),
        DemandWord::Webhook => (quoted(demand.as_str()), WEBHOOK),
        DemandWord::Static | DemandWord::ScaleSet | DemandWord::Poll => (quoted(demand.as_str()), ""),
    };
    let scope = scope.as_str();
    let demand_lines = of_demand(*demand);
    let sizes = if *demand == DemandWord::Static { "" } else { SIZES };
    let (cpus, memory, disk) = (defaults::CPUS, defaults::MEMORY_MIB, defaults::DISK_GIB);
    let text = format!(
        r#"#:schema {schema}
# The configuration of `dayfly orchestrator`. `dayfly validate` checks it; docs/pools.md explains all keys.
# It holds no secret, and everyone may read it.

[forges.main]
url = {forge}
# The credential: a file of mode 0600, a variable (token_env), a systemd credential (token_credential),
# or a GitHub App (app_id, key_file).
{credential}
[pools.{table}]
forge = "main"
scope = "{scope}"	# repo, org or enterprise
principal = {principal}
labels = [{pool}]	# beside self-hosted, Linux and the architecture
demand = {demand_value}
{demand_lines}max = {max}	# most machines at once

# The machine of each job.
cpus = {cpus}
memory = "{memory}MiB"
disk = "{disk}GiB"	# only written blocks take space
{sizes}# image = "ubuntu:24.04"	# any OCI image (default: the built-in image)
# spares = 1	# forks that are kept ready: each one saves time and costs memory

# timeouts = {{ idle = "10m", job = "6h" }}

# [host]
# max_machines = 16	# of all pools together
# vcpu_overcommit = 2.0	# virtual CPUs for each processor
{webhook}"#,
        schema = schema::ADDRESS
    );
    text.lines().map(|line| aligned(line) + "\n").collect()
}

/// Returns a line whose comment, which a tab precedes, begins in the common column.
fn aligned(line: &str) -> String {
    match line.split_once('\t') {
        Some((code, comment)) => format!("{code:COMMENT_COLUMN$}{comment}"),
        None => line.to_owned(),
    }
}

/// Returns the pool's name as a part of a table's name.
fn table_name(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

fn of_demand(demand: DemandWord) -> &'static str {
    match demand {
        DemandWord::Static => "# static: max runners are kept, whether there are jobs or not\n",
        DemandWord::ScaleSet | DemandWord::Webhook | DemandWord::Poll => {
            "min_idle = 0\t# runners that wait without a job, so that the next job starts at once\n"
        }
    }
}
