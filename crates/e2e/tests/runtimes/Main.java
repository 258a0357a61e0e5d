// Exceptions that the virtual machine makes of signals, threads, and code that is compiled while it runs.
import java.util.function.IntUnaryOperator;
import java.util.stream.IntStream;

public class Main {
    static int depth(int n) {
        return depth(n + 1) + 1;
    }

    public static void main(String[] arguments) throws Exception {
        Object nothing = null;
        int caught = 0;
        for (int i = 0; i < 30_000; i++) {
            try {
                caught += nothing.hashCode();
            } catch (NullPointerException expected) {
                caught++;
            }
        }
        try {
            depth(0);
        } catch (StackOverflowError expected) {
            caught++;
        }
        IntUnaryOperator[] made = IntStream.range(0, 50).<IntUnaryOperator>mapToObj(n -> x -> x + n).toArray(IntUnaryOperator[]::new);
        long sum = IntStream.range(0, 200_000).parallel().mapToLong(x -> made[x % made.length].applyAsInt(1)).sum();
        Thread[] threads = new Thread[8];
        int[] total = new int[1];
        for (int i = 0; i < threads.length; i++) {
            threads[i] = new Thread(() -> {
                for (int j = 0; j < 5_000; j++) {
                    synchronized (total) {
                        total[0]++;
                    }
                }
            });
            threads[i].start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        System.out.println("java " + caught + " " + sum + " " + total[0]);
    }
}
