//! Tests with forges that redirect: to a login page, in a circle, to another host.

use super::server::Server;
use crate::{ApiBase, Deletion, Forge, ForgeError, RunnerScope};

fn forge(server: &Server) -> Forge {
    Forge::new(ApiBase::from_host_or_url(&server.url()).unwrap(), "the-token").unwrap()
}

fn scope() -> RunnerScope {
    RunnerScope::Organization("o".into())
}

/// Starts a forge that redirects every call of the API to its login page.
async fn login_page(status: u16) -> Server {
    Server::plain(move |head| match head.contains("/login") {
        true => (200, "<html>Please log in</html>".to_owned()),
        false => (status, "/login?state=SECRET".to_owned()),
    })
    .await
}

#[tokio::test]
async fn a_redirected_deletion_is_an_error_that_names_the_address() {
    for status in [301, 302, 303, 307, 308] {
        let server = login_page(status).await;
        let error = forge(&server).delete_runner(&scope(), 7).await.expect_err("nothing was deleted");
        let address = format!("http://{}/login", server.address);
        assert!(error.to_string().contains(&format!("answered {status} and leads to {address},")), "{error}");
        assert!(!error.to_string().contains("SECRET"), "{error}");
        assert!(server.heads().iter().all(|head| head.starts_with("DELETE ")), "{status}");
    }
}

#[tokio::test]
async fn only_204_and_404_mean_that_a_registration_is_gone() {
    for (status, expected) in [(204, Some(Deletion::Deleted)), (404, Some(Deletion::Gone)), (200, None)] {
        let server = Server::plain(move |_| (status, String::new())).await;
        assert_eq!(forge(&server).delete_runner(&scope(), 7).await.ok(), expected, "{status}");
    }
}

#[tokio::test]
async fn a_lookup_follows_a_redirect_on_the_same_host_and_none_to_another() {
    let server = Server::plain(|head| match head.contains("/new") {
        true => (200, r#"{"id":7,"name":"n","status":"online","busy":true}"#.to_owned()),
        false => (301, "/new".to_owned()),
    })
    .await;
    assert_eq!(forge(&server).get_runner(&scope(), 7).await.unwrap().unwrap().name, "n");

    let other = Server::plain(|_| (200, "{}".to_owned())).await;
    let there = other.url();
    let server = Server::plain(move |_| (302, there.clone())).await;
    let error = forge(&server).get_runner(&scope(), 7).await.expect_err("it leads away");
    assert!(matches!(&error, ForgeError::Redirected { status: 302, .. }), "{error}");
    assert!(other.heads().is_empty(), "the other host was not asked");
}

#[tokio::test]
async fn a_circle_of_redirects_ends() {
    let server = Server::plain(|_| (302, "/again".to_owned())).await;
    forge(&server).get_runner(&scope(), 7).await.expect_err("no end");
    assert!(server.heads().len() <= 6, "{}", server.heads().len());
}

#[tokio::test]
async fn a_list_of_runners_has_a_bound() {
    // Each answer of the server names a next page.
    let page = format!(r#"{{"runners":[],"more":"{}"}}"#, "x".repeat(15 * 1024 * 1024));
    let server = Server::plain(move |_| (200, page.clone())).await;
    let error = forge(&server).list_runners(&scope()).await.expect_err("more than 64 MiB");
    assert!(error.to_string().contains("more than"), "{error}");
    assert_eq!(server.heads().len(), 5);
}
