# Exceptions, threads, a deep stack and a signal.
$stdout.sync = true
caught = 0
20_000.times do
  nil.x
rescue NoMethodError
  caught += 1
end
def deeper = deeper + 1
begin
  deeper
rescue SystemStackError
  caught += 1
end
total = 8.times.map { Thread.new { 1000.times.sum { 1 } } }.sum(&:value)
Signal.trap('USR1') { puts "ruby #{caught} #{total}"; exit! 0 }
Process.kill('USR1', Process.pid)
sleep 60
exit! 1
