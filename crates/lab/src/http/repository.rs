//! Repositories and users as the REST API shows them: GitHub's members with the lab's addresses, most of which the lab does
//! not serve. Source: `minimal-repository` and `simple-user` of GitHub's description of its API (OpenAPI).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

/// Addresses of a repository: the member without `_url`, and the path below the repository.
const REPOSITORY_URLS: [(&str, &str); 36] = [
    ("archive", "/{archive_format}{/ref}"),
    ("assignees", "/assignees{/user}"),
    ("blobs", "/git/blobs{/sha}"),
    ("branches", "/branches{/branch}"),
    ("collaborators", "/collaborators{/collaborator}"),
    ("comments", "/comments{/number}"),
    ("commits", "/commits{/sha}"),
    ("compare", "/compare/{base}...{head}"),
    ("contents", "/contents/{+path}"),
    ("contributors", "/contributors"),
    ("deployments", "/deployments"),
    ("downloads", "/downloads"),
    ("events", "/events"),
    ("forks", "/forks"),
    ("git_commits", "/git/commits{/sha}"),
    ("git_refs", "/git/refs{/sha}"),
    ("git_tags", "/git/tags{/sha}"),
    ("hooks", "/hooks"),
    ("issue_comment", "/issues/comments{/number}"),
    ("issue_events", "/issues/events{/number}"),
    ("issues", "/issues{/number}"),
    ("keys", "/keys{/key_id}"),
    ("labels", "/labels{/name}"),
    ("languages", "/languages"),
    ("merges", "/merges"),
    ("milestones", "/milestones{/number}"),
    ("notifications", "/notifications{?since,all,participating}"),
    ("pulls", "/pulls{/number}"),
    ("releases", "/releases{/id}"),
    ("stargazers", "/stargazers"),
    ("statuses", "/statuses/{sha}"),
    ("subscribers", "/subscribers"),
    ("subscription", "/subscription"),
    ("tags", "/tags"),
    ("teams", "/teams"),
    ("trees", "/git/trees{/sha}"),
];
/// Addresses of a user, in the same form.
const USER_URLS: [(&str, &str); 9] = [
    ("events", "/events{/privacy}"),
    ("followers", "/followers"),
    ("following", "/following{/other_user}"),
    ("gists", "/gists{/gist_id}"),
    ("organizations", "/orgs"),
    ("received_events", "/received_events"),
    ("repos", "/repos"),
    ("starred", "/starred{/owner}{/repo}"),
    ("subscriptions", "/subscriptions"),
];

/// Returns an opaque id of an object, which GraphQL would take at GitHub.
pub(super) fn node_id(kind: &str, id: u64) -> String {
    BASE64.encode(format!("{kind}{id}"))
}

/// Returns a repository of the lab at this address.
pub(super) fn repository(id: u64, owner: &str, name: &str, base: &str) -> Value {
    let full_name = format!("{owner}/{name}");
    let url = format!("{base}/api/v3/repos/{full_name}");
    let members = json!({
        "id": id,
        "node_id": node_id("Repository", id),
        "name": name,
        "full_name": full_name,
        "private": true,
        "owner": user(owner, base),
        "html_url": format!("{base}/{full_name}"),
        "description": null,
        "fork": false,
        "url": url,
    });
    with_urls(members, &url, &REPOSITORY_URLS)
}

/// Returns a user. All of them have one id, because the lab knows owners by their names only.
pub(super) fn user(login: &str, base: &str) -> Value {
    let url = format!("{base}/api/v3/users/{login}");
    let members = json!({
        "login": login,
        "id": 1,
        "node_id": node_id("User", 1),
        "avatar_url": format!("{base}/avatars/{login}"),
        "gravatar_id": "",
        "url": url,
        "html_url": format!("{base}/{login}"),
        "type": "User",
        "site_admin": false,
    });
    with_urls(members, &url, &USER_URLS)
}

fn with_urls(members: Value, url: &str, paths: &[(&str, &str)]) -> Value {
    let Value::Object(members) = members else { return members };
    let urls = paths.iter().map(|(name, path)| (format!("{name}_url"), Value::from(format!("{url}{path}"))));
    Value::Object(members.into_iter().chain(urls).collect::<Map<_, _>>())
}
