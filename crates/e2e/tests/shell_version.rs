//! Tests of the shell version's own command lines, options, variables and files, against a lab. The runners are processes of
//! this host: agent, entrypoint, runner app and handshake are the real ones, and only the machine is missing.

mod shell_version {
    mod files;
    mod loops;
    mod options;
    mod orchestrators;
    mod signals;
    mod stage;
}
