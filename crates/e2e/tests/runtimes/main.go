// Panics that the runtime makes of signals, goroutines that signals interrupt, and a signal that the program catches.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

func caught(f func()) (n int) {
	defer func() {
		if recover() != nil {
			n = 1
		}
	}()
	f()
	return 0
}

func main() {
	var nothing *[4]int
	var zero, n int
	for i := 0; i < 5000; i++ {
		n += caught(func() { nothing[1] = i })
		n += caught(func() { n += i / zero })
	}
	var group sync.WaitGroup
	var lock sync.Mutex
	total := 0
	for i := 0; i < 8; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for j := 0; j < 5000; j++ {
				lock.Lock()
				total++
				lock.Unlock()
			}
			for j := 0; j < 20_000_000; j++ { // no call: only a signal can interrupt it
			}
		}()
	}
	group.Wait()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	_ = syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	<-signals
	fmt.Println("go", n, total)
}
