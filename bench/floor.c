/*
 * The floor: a UDP server that looks at nothing. It sets QR and ANCOUNT and appends one A record to
 * whatever arrives, 64 datagrams per recvmmsg and sendmmsg. No server with a cache can cost less
 * over the same socket calls.
 *
 * usage: floor ADDRESS:PORT [BATCH]     BATCH 1..64, default 64; 1 is the plain one-by-one server
 *
 * Queries with an OPT record get the answer after it: enough for load.c, wrong for a resolver.
 */
#define _GNU_SOURCE
#include "common.h"

#include <sys/epoll.h>

static const uint8_t answer[16] = {
	0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, 1,
};

static uint8_t queries[BATCH][MESSAGE_OCTETS];
static struct sockaddr_in peers[BATCH];
static struct iovec in_parts[BATCH], out_parts[BATCH][2];
static struct mmsghdr in[BATCH], out[BATCH];

static void prepare(void)
{
	for (int i = 0; i < BATCH; i++) {
		in_parts[i] = (struct iovec){queries[i], MESSAGE_OCTETS};
		in[i].msg_hdr = (struct msghdr){
			.msg_name = &peers[i], .msg_iov = &in_parts[i], .msg_iovlen = 1,
		};
		out_parts[i][0].iov_base = queries[i];
		out_parts[i][1] = (struct iovec){(void *)answer, sizeof(answer)};
		out[i].msg_hdr = (struct msghdr){
			.msg_name = &peers[i], .msg_namelen = sizeof(peers[i]),
			.msg_iov = out_parts[i], .msg_iovlen = 2,
		};
	}
}

/* Answers what one recvmmsg brings; returns how many datagrams that were. */
static int serve_batch(int fd, int batch)
{
	int count, sent = 0;

	for (int i = 0; i < batch; i++)
		in[i].msg_hdr.msg_namelen = sizeof(peers[i]);
	count = recvmmsg(fd, in, (unsigned)batch, MSG_DONTWAIT, NULL);
	for (int i = 0; i < count; i++) {
		queries[i][2] |= 0x80;
		queries[i][7] = 1;
		out_parts[i][0].iov_len = in[i].msg_len;
	}
	while (sent < count) {
		int done = sendmmsg(fd, out + sent, (unsigned)(count - sent), MSG_DONTWAIT);

		sent += done > 0 ? done : 1;
	}
	return count;
}

int main(int argc, char **argv)
{
	struct epoll_event event = {.events = EPOLLIN};
	struct sockaddr_in address;
	int fd, epoll, batch = argc > 2 ? atoi(argv[2]) : BATCH;

	if (argc < 2 || batch < 1 || batch > BATCH) {
		fprintf(stderr, "usage: floor ADDRESS:PORT [BATCH]\n");
		return 2;
	}
	address = parse_address(argv[1]);
	fd = bound_socket(SOCK_DGRAM, &address);
	prepare();
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
		die("epoll");
	for (;;) {
		if (epoll_wait(epoll, &event, 1, -1) == 1)
			while (serve_batch(fd, batch) == batch)
				;
	}
}
