/* What load, floor and upstream share: the clock, pinning, addresses, sockets. No DNS policy. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	HEADER_OCTETS = 12,
	QUERY_OCTETS = 300,   /* header, name of 255 octets, type, class, an empty OPT */
	MESSAGE_OCTETS = 512, /* largest reply without EDNS, RFC 1035 section 4.2.1 */
	BATCH = 64,           /* datagrams for one recvmmsg or sendmmsg */
};

static inline void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Binds the process to one core; a negative number leaves it free. */
static inline void pin_to_core(int core)
{
	cpu_set_t set;

	if (core < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(core, &set);
	if (sched_setaffinity(0, sizeof(set), &set) != 0)
		die("sched_setaffinity");
}

/* Turns "127.0.0.15:5300" into a socket address. */
static inline struct sockaddr_in parse_address(const char *text)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	char host[64];
	const char *colon = strrchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : 0;

	if (!colon || length >= sizeof(host))
		goto wrong;
	memcpy(host, text, length);
	host[length] = '\0';
	address.sin_port = htons((uint16_t)atoi(colon + 1));
	if (inet_pton(AF_INET, host, &address.sin_addr) == 1)
		return address;
wrong:
	fprintf(stderr, "%s: want an IPv4 address and a port, such as 127.0.0.15:5300\n", text);
	exit(2);
}

static inline int bound_socket(int type, const struct sockaddr_in *address)
{
	int on = 1;
	int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	if (type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) != 0)
		die("bind");
	return fd;
}

#endif
