%% Exceptions, processes on all schedulers, and a module that is compiled while the program runs.
-module(main).
-export([main/0]).

main() ->
    Caught = length([caught || N <- lists:seq(1, 20000), (catch N div (N - N)) =/= N]),
    Self = self(),
    Pids = [spawn(fun() -> Self ! {self(), lists:sum(lists:seq(1, 1000))} end) || _ <- lists:seq(1, 500)],
    Sum = lists:sum([receive {Pid, N} -> N end || Pid <- Pids]),
    io:format("erlang ~p ~p ~p~n", [Caught, Sum, erlang:system_info(emu_flavor)]),
    halt().
