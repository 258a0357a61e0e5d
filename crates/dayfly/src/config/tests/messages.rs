//! The messages about a file that is wrong.

use super::{around, messages, parse, pool, problems, read};

#[test]
fn all_problems_of_a_file_are_told_at_once_with_their_places() {
    insta::assert_snapshot!(problems(
        r#"
[forges.main]
url = "https://github.com/acme"
token_file = "pat"

[forges.mian]
token_env = "A"
token_credential = "b"

[pools.build]
forge = "man"
scope = "repository"
principal = "acme"
lables = ["x"]
demand = ["scale-set", "webhok"]
min_idle = 9
max = 8
cpus = 65
memory = "2GB"
disk = 32
timeouts = { boot = "soon", job = "6h" }

[[pools.build.schedule]]
days = ["monday"]
from = "8:00"
min_idle = 1

[pools."bad name"]
forge = "main"

[hosts]
max_machines = 1
"#
    ));
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_shown() {
    let text = r#"
[forges.a]
token = "ghp_SECRET"
[forges.b]
token_env = "ghp_SECRET"
[forges.c]
private_key = """
-----BEGIN RSA PRIVATE KEY-----
SECRET
-----END RSA PRIVATE KEY-----
"""
[forges.d]
app_id = "ghp_SECRET"
[forges.e]
github_pat_SECRET = 1
[pools.p]
forge = "a"
principal = "acme/app"
settings = { RUNNER_NOTE = "ghp_SECRET" }
"#;
    let shown = problems(text);
    assert!(!shown.contains("SECRET"), "{shown}");
    insta::assert_snapshot!(shown);
    let broken = problems("[forges.c]\nkey = \"\"\"\n-----BEGIN RSA PRIVATE KEY-----\nSECRET\\q\n");
    assert!(!broken.is_empty() && !broken.contains("SECRET"), "{broken}");
    let broken = problems("[forges.a]\ntoken = SECRET SECRET\n");
    assert!(!broken.is_empty() && !broken.contains("SECRET"), "{broken}");
}

#[test]
fn a_file_that_is_no_toml_is_told_with_every_place() {
    insta::assert_snapshot!(problems("[pools.a\nforge = \n[pools.b]\nforge = \"x\"\nforge = \"y\"\n"));
}

#[test]
fn a_file_that_is_no_text_is_told_with_its_place() {
    let findings = parse("f.toml", b"a = 1\nb = \xff\n", &around()).findings;
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].line, findings[0].column), (2, 5));
    assert_eq!(findings[0].message, "the file is not UTF-8 text");
}

#[test]
fn an_empty_file_has_no_pool() {
    let findings = read("").findings;
    assert_eq!((findings.len(), findings[0].line, findings[0].column), (1, 1, 1));
    assert_eq!(findings[0].message, "there is no pool");
}

#[test]
fn a_value_that_cannot_be_read_causes_no_other_problem() {
    assert_eq!(messages("demand = \"scale-set\"\nmin_idle = 4\nmax = \"many\"").len(), 1);
    assert_eq!(messages("demand = \"scaleset\"\nmin_idle = 4\nmax = 8").len(), 1);
    assert_eq!(messages("scope = \"organization\"\ngroup = \"x\"").len(), 1);
    let text = "[forges]\nmain = 1\n[pools.p]\nforge = \"main\"\nprincipal = \"a/b\"\n";
    assert_eq!(read(text).findings.len(), 1);
}

#[test]
fn a_forge_has_exactly_one_way_to_authenticate() {
    let forge = |keys: &str| {
        let text = format!("[forges.m]\n{keys}\n[pools.p]\nforge = \"m\"\nprincipal = \"a/b\"\n");
        read(&text).findings.into_iter().map(|finding| finding.message).collect::<Vec<_>>().join("; ")
    };
    for good in [
        "token_file = \"/t\"",
        "token_env = \"T\"",
        "token_credential = \"t\"",
        "app_id = 1\nkey_file = \"/k\"",
    ] {
        assert_eq!(forge(good), "");
    }
    assert_eq!(forge(""), "there is no way to authenticate at this forge");
    assert_eq!(
        forge("token_file = \"/t\"\napp_id = 1\nkey_file = \"/k\""),
        "token_file and app_id are two ways to authenticate, and one is needed"
    );
    assert_eq!(forge("app_id = 1"), "a GitHub App needs its private key: the key key_file is missing");
    assert_eq!(
        forge("token_env = \"T\"\nkey_file = \"/k\""),
        "key_file is for a GitHub App, and there is no app_id"
    );
    assert_eq!(forge("token_file = \"pat\""), "the path \"pat\" must be absolute");
    assert_eq!(
        forge("token_credential = \"../x\""),
        "\"../x\" is no name: 1 to 128 letters, digits, _, - or ."
    );
}

#[test]
fn keys_without_a_meaning_are_refused() {
    assert_eq!(
        messages("min_idle = 1\nsizes = [\"dayfly-1cpu-1gb\"]"),
        [
            "pools.p.min_idle: min_idle has no meaning with the demand static, which always keeps max runners",
            "pools.p.sizes: sizes has no meaning with the demand static, which always keeps max runners",
        ]
    );
    assert_eq!(
        messages(
            "demand = \"poll\"\nrepeat = 1\nscale_set = \"x\"\nguest_dir = \"/x\"\nstart = { pause = \"1s\" }"
        ),
        [
            "pools.p.repeat: repeat has a meaning only with the demand static",
            "pools.p.scale_set: scale_set has a meaning only with the demand scale-set",
            "pools.p.guest_dir: guest_dir has a meaning only with dir",
            "pools.p.start: start has a meaning only with the demand static",
        ]
    );
    assert_eq!(
        messages("start = { pause = \"1s\", parallel = 2 }"),
        ["pools.p.start.parallel: a pause between starts excludes parallel and limit"]
    );
}

#[test]
fn sources_that_exclude_each_other_are_refused() {
    let one = |keys: &str| {
        let mut found = messages(keys);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    };
    let of_org = messages("scope = \"org\"\ndemand = \"poll\"");
    assert!(of_org.iter().any(|message| message.contains("jobs of one repository")), "{of_org:?}");
    assert!(one("demand = [\"poll\", \"static\"]").contains("another source has nothing to add"));
    assert!(one("demand = [\"poll\", \"poll\"]").contains("poll is there twice"));
    assert!(one("demand = []").contains("at least one source"));
    assert!(one("demand = \"scale-set\"\nregistration = \"token\"").contains("JIT configs"));
    assert!(one("demand = \"poll\"\nephemeral = false").contains("only a runner of the demand static"));
    assert!(one("registration = \"jit\"\nephemeral = false").contains("a JIT config is for one job"));
    assert!(one("ephemeral = false").contains("finds the files of earlier jobs"), "a warning");
    assert!(read(&pool("ephemeral = false")).config.is_some());
}

#[test]
fn a_webhook_needs_a_server_with_a_secret_and_with_tls_unless_it_is_on_loopback() {
    let found = |keys: &str| {
        let demand = "demand = [\"webhook\", \"poll\"]";
        let webhook = if keys.is_empty() { String::new() } else { format!("[webhook]\n{keys}") };
        messages(&format!("{demand}\n{webhook}"))
    };
    let secret = "secret_file = \"/s\"";
    for good in [
        secret.to_owned(),
        "secret_env = \"S\"\nlisten = \"[::1]:80\"\npath = \"/\"".to_owned(),
        "secret_credential = \"s\"\nlisten = \"0.0.0.0:80\"\nbehind_proxy = true".to_owned(),
        format!("{secret}\nlisten = \"[::]:443\"\ncert_file = \"/c\"\nkey_file = \"/k\""),
    ] {
        assert_eq!(found(&good), [""; 0], "{good}");
    }
    let keys = [
        "",
        "path = \"/x\"",
        "secret_file = \"s\"",
        "secret_file = \"/s\"\nsecret_env = \"S\"",
        "secret_env = \"ghp_x\"",
        "secret_file = \"/s\"\nlisten = \"[::]:9440\"",
        "secret_file = \"/s\"\nlisten = \"::ffff:10.0.0.1\"",
        "secret_file = \"/s\"\nlisten = \"localhost:80\"",
        "secret_file = \"/s\"\npath = \"hook\"",
        "secret_file = \"/s\"\npath = \"/a?b\"",
        "secret_file = \"/s\"\ncert_file = \"/c\"",
        "secret_file = \"/s\"\nkey_file = \"/k\"",
        "secret_file = \"/s\"\ncert_file = \"c\"\nkey_file = \"/k\"",
        "secret_file = \"/s\"\nrate_limit = 0",
        "secret = \"S3CRET\"",
    ];
    let all: Vec<String> = keys.iter().map(|keys| found(keys).join("\n")).collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    pools.p.demand: the demand webhook needs a server, and there is no table [webhook]
    webhook: the webhook has no secret, so anyone could send deliveries
    webhook.secret_file: the path "s" must be absolute
    webhook.secret_env: secret_file and secret_env are two places of the secret, and one is needed
    webhook.secret_env: this is a token itself; the name of the place that holds it is needed
    webhook.listen: [::]:9440 is not loopback, and without TLS everyone on the way can read the deliveries
    webhook.listen: "::ffff:10.0.0.1" is no address with a port, such as 127.0.0.1:9440 or [::]:9440
    webhook.listen: "localhost:80" is no address with a port, such as 127.0.0.1:9440 or [::]:9440
    webhook.path: "hook" is no path: / and at most 200 letters, digits, -, ., _, ~ or /
    webhook.path: "/a?b" is no path: / and at most 200 letters, digits, -, ., _, ~ or /
    webhook.cert_file: the certificate needs its private key: the key key_file is missing
    webhook.key_file: the private key needs its certificate: the key cert_file is missing
    webhook.cert_file: the path "c" must be absolute
    webhook.rate_limit: 0 must be between 1 and 10000
    webhook: the webhook has no secret, so anyone could send deliveries
    webhook.secret: a secret must not be in this file, because the file may be read by others and kept in a repository
    "#);
}

#[test]
fn the_server_for_metrics_needs_a_token_unless_only_this_host_can_connect() {
    let found = |keys: &str| messages(&format!("[web]\n{keys}"));
    for good in [
        "",
        "listen = \"[::1]:80\"",
        "listen = \"unix:/run/dayfly/web.sock\"",
        "listen = \"0.0.0.0:80\"\ntoken_file = \"/t\"",
    ] {
        assert_eq!(found(good), [""; 0], "{good}");
    }
    let keys = [
        "listen = \"0.0.0.0:9441\"",
        "listen = \"localhost:9441\"",
        "listen = \"unix:web.sock\"",
        "token_file = \"t\"",
        "token = \"S3CRET\"",
    ];
    let all: Vec<String> = keys.iter().map(|keys| found(keys).join("\n")).collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    web.listen: 0.0.0.0:9441 can be reached from other hosts, and there is no token
    web.listen: "localhost:9441" is no address to listen at: it must be ADDRESS:PORT, such as 127.0.0.1:9441 or [::1]:9441, or unix:PATH
    web.listen: "unix:web.sock": the path of the socket must be absolute, such as unix:/run/dayfly/web.sock
    web.token_file: the path "t" must be absolute
    web.token: a secret must not be in this file, because the file may be read by others and kept in a repository
    "#);
}

#[test]
fn headers_of_a_collector_go_to_this_host_or_through_tls() {
    let found = |keys: &str| messages(&format!("[traces]\n{keys}"));
    for good in [
        "",
        "endpoint = \"http://collector:4318\"",
        "headers_file = \"/h\"",
        "endpoint = \"https://collector/otlp\"\nheaders_file = \"/h\"",
    ] {
        assert_eq!(found(good), [""; 0], "{good}");
    }
    let keys = [
        "endpoint = \"collector:4317\"",
        "endpoint = \"https://u:S3CRET@collector\"",
        "endpoint = \"http://collector:4318\"\nheaders_file = \"/h\"",
        "headers_file = \"h\"",
        "token = \"S3CRET\"",
    ];
    let all: Vec<String> = keys.iter().map(|keys| found(keys).join("\n")).collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    traces.endpoint: "collector:4317" is no address of a collector: it must be a URL such as http://127.0.0.1:4318
    traces.endpoint: the address of a collector has only a host, a port and a path, and no user or password
    traces.endpoint: http://collector:4318 is another host without TLS, and others on the way could read the headers
    traces.headers_file: the path "h" must be absolute
    traces.token: a secret must not be in this file, because the file may be read by others and kept in a repository
    "#);
}

#[test]
fn a_webhook_alone_is_a_warning_because_a_lost_delivery_is_not_sent_again() {
    let webhook = "[webhook]\nsecret_env = \"S\"";
    for (keys, hint) in [
        ("demand = \"webhook\"", Some("add the fallback")),
        ("demand = \"webhook\"\nscope = \"enterprise\"\nprincipal = \"acme\"", Some("use scale-set")),
        ("demand = [\"webhook\", \"poll\"]", None),
        ("demand = [\"webhook\", \"scale-set\"]", None),
    ] {
        let text = pool(&format!("{keys}\n{webhook}"));
        let text = if keys.contains("principal") {
            text.replacen("principal = \"acme/app\"\n", "", 1)
        } else {
            text
        };
        let reading = read(&text);
        assert!(reading.config.is_some(), "{:?}", reading.findings);
        let hints: Vec<_> = reading.findings.iter().filter_map(|finding| finding.hint.as_deref()).collect();
        assert_eq!(hints.len(), usize::from(hint.is_some()), "{keys}: {:?}", reading.findings);
        assert!(hint.is_none_or(|hint| hints[0].starts_with(hint)), "{hints:?}");
    }
    assert_eq!(messages(webhook), ["webhook: no pool has the demand webhook"]);
}

#[test]
fn values_are_checked_as_those_of_options_are() {
    for (keys, message) in [
        ("labels = [\"a\\nb\"]", "is no label"),
        ("prefix = \"-x\"", "expected 1 to 52 letters"),
        ("memory = \"256MiB\"", "256 MiB of memory are too few"),
        ("memory = \"2TiB\"", "2TiB is not between 1 MiB and 1048576 MiB"),
        ("disk = \"1536MiB\"", "1536MiB is no whole number of GiB"),
        ("cpu_model = \"-x\"", "expected a model"),
        ("require = [\"moat\"]", "moat"),
        ("driver = \"krunvm\"\nrequire = [\"user\"]", "only the driver qemu has it, not krunvm"),
        ("mounts = [\"/a:/b\", \"x:/y\"]", "\"x\" is not an absolute path"),
        ("dir = \"local\"", "must be absolute"),
        ("driver = \"docker\"", "is no driver"),
        ("settings = { RUNNER_PAT = \"x\" }", "this cannot be a setting"),
        ("group = \"x\"", "a repository knows only the runner group Default"),
        ("timeouts = { idle = \"59s\" }", "59s is too short for the demand static"),
        ("max = 1000", "1000 must be between 1 and 999"),
        ("dns = \"one\"", "invalid IP address"),
        ("network = \"shut\"", "unknown word `shut`"),
        ("network = \"allow\"", "network = allow needs a list"),
        ("allow = [\"example.com\"]", "has a meaning only with network = allow or audit"),
        ("network = \"allow\"\nallow = [\"github\", \"githb\"]", "\"githb\" is no destination"),
        ("network = \"allow\"\nallow = [\"example.com\"]", "the preset github is not in the list"),
        ("network = \"none\"", "a runner of api.github.com needs many hosts"),
        ("network = \"none\"\ndriver = \"krunvm\"", "network = none needs the driver qemu"),
        ("warm_up = \"w.sh\"", "must be absolute"),
        ("demand = \"poll\"\nsizes = [\"big\"]", "is no label of a size"),
        ("demand = \"poll\"\nsizes = [\"dayfly-1cpu-1gb\", \"dayfly-1cpu-1gb\"]", "is there twice"),
        (
            "demand = \"poll\"\nlabels = [\"Dayfly-1cpu-1gb\"]\nsizes = [\"dayfly-1cpu-1gb\"]",
            "is one of the labels too",
        ),
        (
            "demand = \"scale-set\"\nscale_set = \"a-scale-set-with-a-name-that-is-long-enough-by-itself\"\nsizes = [\"dayfly-1cpu-1gb\"]",
            "is longer than 64 characters",
        ),
        (
            "demand = \"poll\"\nschedule = [{ from = \"08:00\", to = \"09:00\", min_idle = 2 }]",
            "min_idle = 2 is more than max = 1",
        ),
        (
            "demand = \"poll\"\nschedule = [{ from = \"08:00\", to = \"09:00\" }]",
            "the key min_idle is missing",
        ),
    ] {
        let found = messages(keys);
        assert!(found.len() == 1 && found[0].contains(message), "{keys}: {found:?}");
    }
    assert!(messages("memory = \"256MiB\"\ndriver = \"krunvm\"").is_empty());
    let sizes: Vec<String> = (1..=17).map(|cpus| format!("\"dayfly-{cpus}cpu-1gb\"")).collect();
    let found = messages(&format!("demand = \"poll\"\nsizes = [{}]", sizes.join(", ")));
    assert_eq!(found, ["pools.p.sizes: 17 sizes are too many: each has a template of its own"]);
}

#[test]
fn a_problem_in_a_list_is_at_its_element() {
    let findings = read(&pool("mounts = [\"/a:/b\", \"x:/y\"]")).findings;
    assert_eq!(
        (findings[0].key.as_str(), findings[0].line, findings[0].column),
        ("pools.p.mounts[1]", 6, 20)
    );
}

#[test]
fn two_pools_cannot_have_one_scale_set() {
    let pool = |name: &str, keys: &str| {
        format!(
            "[pools.{name}]\nforge = \"m\"\nscope = \"org\"\nprincipal = \"Acme\"\ndemand = \"scale-set\"\n{keys}\n"
        )
    };
    let both = |first: &str, second: &str| {
        let text = format!("[forges.m]\ntoken_env = \"T\"\n{}{}", pool("a", first), pool("b", second));
        read(&text).findings.into_iter().map(|finding| (finding.line, finding.message)).collect::<Vec<_>>()
    };
    assert!(both("", "").is_empty());
    assert!(both("scale_set = \"x\"", "scale_set = \"x\"\ngroup = \"other\"").is_empty());
    let sizes = "scale_set = \"x\"\nsizes = [\"dayfly-1cpu-1gb\"]";
    let found = both(sizes, "scale_set = \"x-dayfly-1cpu-1gb\"");
    assert!(found[0].1.starts_with("the pool a (dayfly-1cpu-1gb) has the scale set"), "{found:?}");
    let found = both("scale_set = \"x\"", "scale_set = \"X\"");
    assert_eq!(
        found,
        [(14, "the pool a has the scale set \"X\" too: same forge, scope, owner and group".to_owned())]
    );
}

#[test]
fn a_size_that_two_pools_of_one_place_have_is_a_warning() {
    let pool = |name: &str, owner: &str| {
        format!(
            "[pools.{name}]\nforge = \"m\"\nprincipal = \"{owner}/x\"\ndemand = \"poll\"\nsizes = [\"dayfly-1cpu-1gb\"]\n"
        )
    };
    let both = |first: &str, second: &str| {
        read(&format!("[forges.m]\ntoken_env = \"T\"\n{}{}", pool("a", first), pool("b", second)))
    };
    assert!(both("acme", "other").findings.is_empty());
    let reading = both("acme", "ACME");
    let [finding] = &reading.findings[..] else { panic!("{:?}", reading.findings) };
    assert_eq!(
        finding.message,
        "the pool a has the size dayfly-1cpu-1gb too, and a job with this label may get either"
    );
    assert_eq!(finding.hint.as_deref(), Some("in workflows, runs-on: b-dayfly-1cpu-1gb means this pool"));
    assert!(reading.config.is_some());
}

#[test]
fn a_pool_that_the_budget_can_never_hold_is_an_error() {
    let found = |keys: &str, host: &str| messages(&format!("{keys}\n[host]\n{host}"));
    assert_eq!(found("max = 4\ncpus = 2", "vcpu_overcommit = 2\nmax_machines = 4"), [""; 0]);
    assert_eq!(
        found("max = 4\ncpus = 3", "vcpu_overcommit = 2.0\nmax_machines = 3"),
        [
            "pools.p.max: 4 machines of this pool can never run at once: max_machines = 3 allows 3",
            "pools.p.max: 4 machines of this pool can never run at once: they have 12 virtual CPUs, and 4 processors with vcpu_overcommit = 2 allow 8",
        ]
    );
    let too_large = "pools.p.max: 7 machines of this pool can never run at once: they have 57344 MiB of memory, and 16384 MiB with memory_overcommit = 3 allow 49152";
    assert_eq!(found("max = 7\nmemory = \"8GiB\"", ""), [too_large]);
    assert_eq!(found("max = 7\nmemory = \"8GiB\"", "memory_overcommit = 4"), [""; 0]);
    assert_eq!(
        found(
            "demand = \"poll\"\nsizes = [\"dayfly-1cpu-1gb\", \"dayfly-9cpu-64gb\"]",
            "vcpu_overcommit = 2"
        ),
        [
            "pools.p.sizes[1]: a machine of the size dayfly-9cpu-64gb can never run: it has 9 virtual CPUs, and 4 processors with vcpu_overcommit = 2 allow 8",
            "pools.p.sizes[1]: a machine of the size dayfly-9cpu-64gb can never run: it has 65536 MiB of memory, and 16384 MiB with memory_overcommit = 3 allow 49152",
        ]
    );
}

#[test]
fn a_limit_of_scratch_space_has_room_for_a_machine_and_that_of_a_pool_is_within_that_of_the_host() {
    let found =
        |pool: &str, host: &str| messages(&format!("scratch = \"{pool}\"\n[host]\nscratch = \"{host}\""));
    assert_eq!(found("64MiB", "1GiB"), [""; 0]);
    assert_eq!(
        found("63MiB", "32MiB"),
        [
            "pools.p.scratch: 63MiB has no room for a machine, for which 64MiB are needed at least",
            "host.scratch: 32MiB has no room for a machine, for which 64MiB are needed at least",
        ]
    );
    assert_eq!(
        found("2GiB", "1GiB"),
        ["pools.p.scratch: this has no effect, because host.scratch allows all pools 1024 MiB"]
    );
}

#[test]
fn files_that_are_missing_on_this_host_are_warnings() {
    let text = r#"
[forges.m]
token_file = "/nonexistent/token"
[pools.p]
forge = "m"
principal = "a/b"
mounts = ["/nonexistent/x:/y"]
dir = "/local"
[pools.q]
forge = "m"
principal = "a/b"
warm_up = "/nonexistent/w"
"#;
    let here =
        super::Surroundings { is_this_host: true, guest_folder: "/nonexistent/guest".into(), ..around() };
    let reading = parse("f.toml", text.as_bytes(), &here);
    assert!(reading.config.is_some());
    let warnings: Vec<String> =
        reading.findings.iter().map(|finding| format!("{}: {}", finding.line, finding.message)).collect();
    insta::assert_snapshot!(warnings.join("\n"));
    assert!(read(text).findings.is_empty(), "on another host they may be there");
}

#[test]
fn keys_about_forks_are_a_warning_if_machines_are_booted() {
    for (keys, why) in [
        ("spares = 1\ncold = true", "cold machines are booted"),
        ("spares = 1\nmounts = [\"/a:/b\"]", "machines with mounts are booted"),
        ("spares = 1\ndir = \"/local\"", "machines with mounts are booted"),
        ("spares = 1\ndriver = \"krunvm\"", "only qemu forks machines"),
    ] {
        assert_eq!(messages(keys), [format!("pools.p.spares: this has no effect, because {why}")]);
        assert!(read(&pool(keys)).config.is_some(), "{keys}");
    }
    assert_eq!(messages("spares = 1"), [""; 0]);
}

#[test]
fn a_pool_whose_machines_cannot_be_frozen_keeps_none() {
    for (keys, why) in [
        ("mounts = [\"/a:/b\"]", "machines with mounts cannot be frozen"),
        ("dir = \"/local\"", "machines with mounts cannot be frozen"),
        ("driver = \"krunvm\"", "only machines of qemu can be frozen"),
        ("keep = true", "keep leaves all machines running"),
    ] {
        let keys = format!("keep_failed = \"3d\"\n{keys}");
        assert_eq!(messages(&keys), [format!("pools.p.keep_failed: this has no effect, because {why}")]);
    }
    assert_eq!(messages("keep_failed = \"12h\"\ncold = true"), [""; 0]);
}

#[test]
fn a_forge_without_pools_is_a_warning() {
    let text = format!("{}\n[forges.spare]\ntoken_env = \"T\"\n", pool(""));
    let reading = read(&text);
    assert!(reading.config.is_some());
    assert_eq!(reading.findings[0].message, "no pool uses this forge");
}
