// Exceptions that the runtime makes of signals, threads, and a method that is made while the program runs.
using System;
using System.Reflection.Emit;
using System.Threading;

class Program {
    static void Main() {
        string nothing = null;
        int caught = 0, zero = 0;
        for (int i = 0; i < 3000; i++) {
            try { caught += nothing.Length; } catch (NullReferenceException) { caught++; }
            try { caught += i / zero; } catch (DivideByZeroException) { caught++; }
            try { throw new InvalidOperationException("x"); } catch (InvalidOperationException) { caught++; }
        }
        var method = new DynamicMethod("Add", typeof(int), new[] { typeof(int), typeof(int) });
        var code = method.GetILGenerator();
        code.Emit(OpCodes.Ldarg_0);
        code.Emit(OpCodes.Ldarg_1);
        code.Emit(OpCodes.Add);
        code.Emit(OpCodes.Ret);
        var add = (Func<int, int, int>)method.CreateDelegate(typeof(Func<int, int, int>));
        int total = 0;
        var threads = new Thread[8];
        for (int i = 0; i < threads.Length; i++) {
            threads[i] = new Thread(() => { for (int j = 0; j < 2000; j++) Interlocked.Add(ref total, add(1, 0)); });
            threads[i].Start();
        }
        foreach (var thread in threads) thread.Join();
        GC.Collect();
        Console.WriteLine("mono " + caught + " " + total);
    }
}
