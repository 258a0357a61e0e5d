// Exceptions, functions made while the program runs, WebAssembly whose traps are signals, threads and a signal.
const { Worker, isMainThread, workerData, threadId } = require('node:worker_threads');

if (!isMainThread) {
  const shared = new Int32Array(workerData);
  for (let i = 0; i < 5000; i++) Atomics.add(shared, 0, 1);
} else {
  let caught = 0;
  for (let i = 0; i < 20000; i++) {
    try { null.x; } catch { caught++; }
  }
  try { (function deeper() { deeper(); })(); } catch { caught++; }
  let sum = 0;
  for (let i = 0; i < 300; i++) sum += new Function('x', `return x + ${i}`)(1);
  // (module (memory 1) (func (export "load") (param i32) (result i32) local.get 0 i32.load))
  const bytes = Buffer.from('0061736d0100000001060160017f017f030201000503010001070801046c6f616400000a0901070020002802000b', 'hex');
  const { load } = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports;
  for (let i = 0; i < 2000; i++) {
    try { load(0x7fffff00); } catch (error) { if (error instanceof WebAssembly.RuntimeError) caught++; }
    sum += load(16);
  }
  const shared = new SharedArrayBuffer(4);
  const workers = Array.from({ length: 4 }, () => new Promise((resolve, reject) =>
    new Worker(__filename, { workerData: shared }).on('exit', resolve).on('error', reject)));
  Promise.all(workers).then(() => {
    process.on('SIGUSR2', () => {
      console.log('node', caught, sum, new Int32Array(shared)[0]);
      process.exit(0);
    });
    process.kill(process.pid, 'SIGUSR2');
    setTimeout(() => process.exit(1), 60000);
  });
}
