//! What the lab evaluates itself: names, `runs-on`, strategy, timeouts.
