//! The pages that the browser gets. Each text in them is escaped, because some come from the forge.

use std::fmt::Write as _;

use dayfly_forge::{AppManifest, Permission};

/// Returns a text with the characters escaped that have a meaning in HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Returns a page. The style has the nonce that the policy of the page names.
fn page(nonce: &str, title: &str, body: &str) -> String {
    const STYLE: &str = ":root{color-scheme:light dark;font:1rem/1.5 system-ui,sans-serif}\
        body{max-width:40rem;margin:3rem auto;padding:0 1rem}\
        table{border-collapse:collapse;margin:1rem 0}td,th{text-align:left;padding:.3rem 1.5rem .3rem 0;\
        border-bottom:1px solid #8884}code{overflow-wrap:anywhere}\
        button{font:inherit;padding:.6rem 1.2rem;border:0;border-radius:.4rem;background:#1f6f43;color:#fff;cursor:pointer}";
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{title}</title>\n\
         <style nonce=\"{nonce}\">{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    )
}

/// Returns the page with the form that sends the manifest to the forge.
pub(super) fn form(
    nonce: &str,
    manifest: &AppManifest,
    manifest_text: &str,
    form_url: &str,
    web: &str,
) -> String {
    let mut rows = String::new();
    for Permission { title, level, access, .. } in manifest.permissions() {
        let (title, level, access) = (escape(title), level.heading(), access.title());
        let _ = writeln!(rows, "<tr><td>{title}</td><td>{level}</td><td>{access}</td></tr>");
    }
    let owner = match &manifest.organization {
        Some(organization) => format!("the organisation <b>{}</b>", escape(organization)),
        None => "your own account".to_owned(),
    };
    let webhook = match &manifest.webhook {
        Some(url) => format!("It sends events about jobs to <code>{}</code>.", escape(url.as_str())),
        None => "It has no webhook.".to_owned(),
    };
    let body = format!(
        "<p>The App <b>{}</b> will belong to {owner} and have these permissions:</p>\n\
         <table>\n<tr><th>Permission</th><th>List</th><th>Access</th></tr>\n{rows}</table>\n\
         <p>{webhook} {} asks you to confirm, and lets you change the name; sign in there first. dayfly then stores the key on its host.</p>\n\
         <form action=\"{}\" method=\"post\">\n<input type=\"hidden\" name=\"manifest\" value=\"{}\">\n\
         <button type=\"submit\">Continue at {}</button>\n</form>\n",
        escape(&manifest.name),
        escape(web),
        escape(form_url),
        escape(manifest_text),
        escape(web),
    );
    page(nonce, "Create a GitHub App for dayfly", &body)
}

/// Returns the page for an App that was created.
pub(super) fn created(nonce: &str, install_page: &str, key_file: &str) -> String {
    let body = format!(
        "<p>Its key is in <code>{}</code>. dayfly has printed the lines for its configuration.</p>\n\
         <p>Now <a href=\"{}\">install the App</a> for the repositories that have runners. This page can be closed.</p>\n",
        escape(key_file),
        escape(install_page),
    );
    page(nonce, "The App exists", &body)
}

/// Returns the page for something that went wrong.
pub(super) fn failed(nonce: &str, why: &str) -> String {
    page(nonce, "That did not work", &format!("<p>{}</p>\n", escape(why)))
}

#[cfg(test)]
mod tests {
    use dayfly_forge::{ForgeUse, ScopeKind};

    use super::*;

    #[test]
    fn the_form_shows_the_permissions_and_sends_the_manifest() {
        let manifest = AppManifest {
            name: "dayfly-1".to_owned(),
            organization: None,
            uses: vec![ForgeUse::Runners(ScopeKind::Repository), ForgeUse::Jobs],
            webhook: None,
        };
        let text = form(
            "n0",
            &manifest,
            r#"{"a":"b"}"#,
            "https://github.com/settings/apps/new?state=s",
            "https://github.com",
        );
        insta::assert_snapshot!(text);
    }

    #[test]
    fn no_text_of_a_forge_or_a_user_becomes_markup() {
        let evil = r#""><script>alert('1')</script>&"#;
        let manifest = AppManifest {
            name: evil.to_owned(),
            organization: Some(evil.to_owned()),
            uses: Vec::new(),
            webhook: None,
        };
        for page in [form("n", &manifest, evil, evil, evil), created("n", evil, evil), failed("n", evil)] {
            assert!(!page.contains("<script") && page.contains("&quot;&gt;&lt;script&gt;"), "{page}");
        }
    }
}
