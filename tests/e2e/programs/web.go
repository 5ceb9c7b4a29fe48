// web serve ADDR | get URL COUNT keep|close | many URL CLIENTS EACH | udp ADDR | dial NETWORK ADDR | lookup NAME
//   | redis ADDR | run COMMAND ARG...
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	check(err)
	return value
}

func serve(address string) {
	check(http.ListenAndServe(address, http.HandlerFunc(func(out http.ResponseWriter, request *http.Request) {
		host, _, _ := net.SplitHostPort(request.RemoteAddr)
		fmt.Fprintf(out, "hello %s\n", host)
	})))
}

func get(url string, count int, keep bool) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: !keep}, Timeout: 20 * time.Second}
	for i := 0; i < count; i++ {
		response, err := client.Get(url)
		check(err)
		body, err := io.ReadAll(response.Body)
		check(err)
		response.Body.Close()
		fmt.Print(string(body))
	}
}

func many(url string, clients int, each int) {
	var group sync.WaitGroup
	for i := 0; i < clients; i++ {
		group.Add(1)
		go func() { get(url, each, false); group.Done() }()
	}
	group.Wait()
}

func udp(address string) {
	where, err := net.ResolveUDPAddr("udp", address)
	check(err)
	socket, err := net.ListenUDP("udp", where)
	check(err)
	data := make([]byte, 1000)
	for {
		size, from, err := socket.ReadFromUDP(data)
		check(err)
		_, err = socket.WriteToUDP([]byte(fmt.Sprintf("%s from %s", data[:size], from.IP)), from)
		check(err)
	}
}

// As redis-server does: of each array of strings (redis.io/docs/reference/protocol-spec) the last one is said again.
func redis(address string) {
	listener, err := net.Listen("tcp", address)
	check(err)
	for {
		connection, err := listener.Accept()
		check(err)
		go func() {
			defer connection.Close()
			in := bufio.NewReader(connection)
			for {
				var count, size int
				if _, err := fmt.Fscanf(in, "*%d\r\n", &count); err != nil {
					return
				}
				data := []byte{}
				for i := 0; i < count; i++ {
					_, err := fmt.Fscanf(in, "$%d\r\n", &size)
					check(err)
					data = make([]byte, size+2)
					_, err = io.ReadFull(in, data)
					check(err)
				}
				if _, err := fmt.Fprintf(connection, "$%d\r\n%s", size, data); err != nil {
					return
				}
			}
		}()
	}
}

func dial(network string, address string) {
	connection, err := net.DialTimeout(network, address, 10*time.Second)
	check(err)
	fmt.Println(connection.LocalAddr(), "to", connection.RemoteAddr())
	_, err = connection.Write([]byte("PING\r\n"))
	check(err)
	data := make([]byte, 1000)
	check(connection.SetReadDeadline(time.Now().Add(10 * time.Second)))
	size, err := connection.Read(data)
	check(err)
	fmt.Println(string(data[:size]))
}

func main() {
	word := os.Args[2:]
	switch os.Args[1] {
	case "serve":
		serve(word[0])
	case "get":
		get(word[0], number(word[1]), word[2] == "keep")
	case "many":
		many(word[0], number(word[1]), number(word[2]))
	case "udp":
		udp(word[0])
	case "redis":
		redis(word[0])
	case "dial":
		dial(word[0], word[1])
	case "lookup":
		addresses, err := net.LookupHost(word[0])
		check(err)
		fmt.Println(addresses)
	case "run":
		command := exec.Command(word[0], word[1:]...)
		command.Stdout, command.Stderr = os.Stdout, os.Stderr
		check(command.Run())
	}
}
