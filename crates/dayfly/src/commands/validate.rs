//! `dayfly validate [FILE]`: checks a configuration file and shows its pools.

use dayfly_host::quantity::quantity;
use jiff::Timestamp;

use crate::cli::ValidateArgs;
use crate::config::{self, Config, Finding, PoolConfig, Reading, Severity, Surroundings};
use crate::exit::{Failure, Outcome, Result};
use crate::printer;
use crate::settings::Places;

pub(crate) fn run(places: &Places, args: &ValidateArgs) -> Result<Outcome> {
    if args.schema {
        printer::line(config::schema::text().trim_end());
        return Ok(Outcome::Success);
    }
    let around = match args.other_host {
        true => Surroundings::another_host(places),
        false => Surroundings::this_host(places),
    };
    let reading = config::read(&args.file, &around)?;
    if args.json {
        printer::json(&serde_json::json!({
            "file": args.file.display().to_string(),
            "problems": reading.findings,
            "config": reading.config,
        }));
    } else {
        reading.findings.iter().for_each(show);
    }
    let errors = reading.errors();
    let Reading { config: Some(config), .. } = reading else {
        return Err(Failure::usage(format!(
            "{} has {}",
            args.file.display(),
            quantity(errors, "error", "errors")
        )));
    };
    if !args.json {
        printer::line(summary(&config));
        let head = ["POOL", "FORGE", "OWNER", "DEMAND", "RUNNERS", "IDLE NOW", "MACHINE", "IMAGE"];
        printer::table(head, rows(&config, Timestamp::now()));
    }
    Ok(Outcome::Success)
}

/// Prints a problem to standard error.
pub(crate) fn show(finding: &Finding) {
    match finding.severity {
        Severity::Error => printer::error(finding, finding.hint.as_deref()),
        Severity::Warning => {
            printer::warning(finding);
            if let Some(hint) = &finding.hint {
                printer::hint(hint);
            }
        }
    }
}

fn summary(config: &Config) -> String {
    let pools = quantity(config.pools.len(), "pool", "pools");
    format!("ok: {pools}, {}", quantity(config.forges.len(), "forge", "forges"))
}

/// Returns a row for each pool and each of its sizes.
fn rows(config: &Config, now: Timestamp) -> impl Iterator<Item = [String; 8]> {
    config.pools.iter().flat_map(PoolConfig::by_size).map(move |pool| row(config, &pool, now))
}

/// Returns the cells of a pool: what its keys and the defaults mean together.
fn row(config: &Config, pool: &PoolConfig, now: Timestamp) -> [String; 8] {
    let spec = &pool.spec;
    let forge = config.forges.get(&pool.forge).map(|forge| forge.url.web_url()).unwrap_or_default();
    let is_static = pool.sources == [config::DemandWord::Static];
    let runners = if is_static { pool.max.to_string() } else { format!("0-{}", pool.max) };
    let idle = if is_static { pool.max } else { pool.schedule.min_idle_at(now, pool.min_idle) };
    let sources: Vec<&str> = pool.sources.iter().map(|source| source.as_str()).collect();
    let machine = &spec.machine;
    [
        pool.name.clone(),
        forge,
        spec.scope.to_string(),
        sources.join(","),
        runners,
        idle.to_string(),
        format!("{} vCPUs, {} MiB, {} GiB", machine.cpus, machine.memory_mib, machine.disk_gib),
        machine.image.clone().unwrap_or_else(|| "default".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_shown_as_it_resolves() {
        let text = r#"
            [forges.main]
            url = "https://ghes.example"
            token_env = "TOKEN"
            [pools.build]
            forge = "main"
            principal = "acme/app"
            demand = ["scale-set", "poll"]
            max = 8
            memory = "2GiB"
            sizes = ["dayfly-4cpu-8gb"]
            [[pools.build.schedule]]
            days = ["mon"]
            from = "08:00"
            to = "18:00"
            min_idle = 3
            [pools.old]
            forge = "main"
            principal = "acme/old"
            image = "ubuntu:24.04"
        "#;
        let around = Surroundings { is_this_host: false, size: None, guest_folder: "/".into() };
        let config = config::parse("dayfly.toml", text.as_bytes(), &around).config.expect("good");
        assert_eq!(summary(&config), "ok: 2 pools, 1 forge");
        let monday: Timestamp = "2026-01-05T12:00Z".parse().expect("a time");
        let rows: Vec<String> = rows(&config, monday).map(|row| row.join(" | ")).collect();
        assert_eq!(
            rows,
            [
                "build | https://ghes.example | acme/app | scale-set,poll | 0-8 | 3 | \
                 2 vCPUs, 2048 MiB, 32 GiB | default",
                "build (dayfly-4cpu-8gb) | https://ghes.example | acme/app | scale-set,poll | 0-8 | 0 | \
                 4 vCPUs, 8192 MiB, 32 GiB | default",
                "old | https://ghes.example | acme/old | static | 1 | 1 | 2 vCPUs, 1024 MiB, 32 GiB | ubuntu:24.04",
            ]
        );
    }
}
