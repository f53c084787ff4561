/*
 * The upstream that all servers forward to: over TCP (any number of connections, pipelined, in
 * order) and UDP it answers every A question under the zone with one record, TTL 300. Other types
 * are NODATA, other names NXDOMAIN, both with a SOA. Queries with an OPT record get one back.
 *
 * usage: upstream ADDRESS:PORT ZONE [CORE]
 */
#define _GNU_SOURCE
#include "common.h"

#include <netinet/tcp.h>
#include <strings.h>
#include <sys/epoll.h>

enum {
	EVENTS = 64,
	CONNECTIONS = 1024,        /* file descriptors above this are closed at once */
	INPUT_OCTETS = 64 * 1024,  /* one read */
	OUTPUT_OCTETS = 512 * 1024 /* replies to one read: 64 KiB / 17 octets x growth, and a rest */
};

struct connection {
	size_t in_used, out_used, out_sent;
	uint8_t in[INPUT_OCTETS];
	uint8_t out[OUTPUT_OCTETS];
};

static struct connection *connections[CONNECTIONS];
static uint8_t zone[256]; /* in wire format, with the root's octet */
static size_t zone_octets;
static int epoll;

static const uint8_t a_record[16] = {
	0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 10, 0, 0, 1,
};
static const uint8_t soa_record[] = {
	0, 0, 6, 0, 1, 0, 0, 0, 30, 0, 22, 0, 0,
	0, 0, 0, 1, 0, 0, 0, 60, 0, 0, 0, 60, 0, 0, 0, 60, 0, 0, 0, 30,
};
static const uint8_t opt_record[11] = {0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0};

static void set_zone(const char *text)
{
	while (*text && zone_octets < sizeof(zone) - 65) {
		size_t length = strcspn(text, ".");

		if (length == 0 || length > 63)
			break;
		zone[zone_octets++] = (uint8_t)length;
		memcpy(zone + zone_octets, text, length);
		zone_octets += length;
		text += length + (text[length] == '.');
	}
	zone[zone_octets++] = 0;
}

/* Returns where the question ends, or 0 if the query is broken or holds several. */
static size_t question_end(const uint8_t *query, size_t octets)
{
	size_t at = HEADER_OCTETS;

	if (octets < HEADER_OCTETS + 5 || (query[2] & 0x80) || query[4] || query[5] != 1)
		return 0;
	while (at < octets && query[at]) {
		if (query[at] > 63)
			return 0;
		at += query[at] + 1u;
	}
	return at + 5 <= octets ? at + 5 : 0;
}

static uint8_t *append(uint8_t *end, const uint8_t *octets, size_t count)
{
	memcpy(end, octets, count);
	return end + count;
}

/* Composes the response into `reply` (at least octets + 64 large); returns its size, 0 for none. */
static size_t respond(const uint8_t *query, size_t octets, uint8_t *reply)
{
	size_t end = question_end(query, octets), name_octets;
	uint8_t *to = reply;
	int inside, is_a;

	if (!end)
		return 0;
	name_octets = end - HEADER_OCTETS - 4;
	inside = name_octets >= zone_octets &&
		 strncasecmp((const char *)query + end - 4 - zone_octets, (const char *)zone,
			     zone_octets) == 0;
	is_a = query[end - 4] == 0 && query[end - 3] == 1;
	to = append(to, query, end);
	memset(reply + 6, 0, 6);
	reply[2] = 0x84 | (query[2] & 0x01);
	reply[3] = inside ? 0x80 : 0x83;
	if (inside && is_a) {
		to = append(to, a_record, sizeof(a_record));
		reply[7] = 1;
	} else {
		to = append(to, soa_record, sizeof(soa_record));
		reply[9] = 1;
	}
	if (query[11]) {
		to = append(to, opt_record, sizeof(opt_record));
		reply[11] = 1;
	}
	return (size_t)(to - reply);
}

static void serve_udp(int fd)
{
	static uint8_t queries[BATCH][MESSAGE_OCTETS], replies[BATCH][MESSAGE_OCTETS + 64];
	static struct sockaddr_in peers[BATCH];
	struct iovec in_parts[BATCH], out_parts[BATCH];
	struct mmsghdr in[BATCH], out[BATCH];
	int count, ready = 0, sent = 0;

	memset(in, 0, sizeof(in));
	memset(out, 0, sizeof(out));
	for (int i = 0; i < BATCH; i++) {
		in_parts[i] = (struct iovec){queries[i], MESSAGE_OCTETS};
		in[i].msg_hdr = (struct msghdr){
			.msg_name = &peers[i], .msg_namelen = sizeof(peers[i]),
			.msg_iov = &in_parts[i], .msg_iovlen = 1,
		};
	}
	count = recvmmsg(fd, in, BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < count; i++) {
		size_t octets = respond(queries[i], in[i].msg_len, replies[ready]);

		if (!octets)
			continue;
		out_parts[ready] = (struct iovec){replies[ready], octets};
		out[ready].msg_hdr = (struct msghdr){
			.msg_name = &peers[i], .msg_namelen = in[i].msg_hdr.msg_namelen,
			.msg_iov = &out_parts[ready], .msg_iovlen = 1,
		};
		ready++;
	}
	while (sent < ready) {
		int done = sendmmsg(fd, out + sent, (unsigned)(ready - sent), MSG_DONTWAIT);

		sent += done > 0 ? done : 1;
	}
}

static void close_connection(int fd)
{
	free(connections[fd]);
	connections[fd] = NULL;
	close(fd);
}

static void accept_all(int listener)
{
	int fd, on = 1;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

		if (fd >= CONNECTIONS || !(connections[fd] = calloc(1, sizeof(struct connection)))) {
			close(fd);
			continue;
		}
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	}
}

/* Sends what is composed; waits for EPOLLOUT, without reading more, when the peer is slow. */
static int flush(int fd, struct connection *c)
{
	while (c->out_sent < c->out_used) {
		ssize_t n = send(fd, c->out + c->out_sent, c->out_used - c->out_sent, MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			return -1;
		if (n < 0) {
			struct epoll_event event = {.events = EPOLLOUT, .data.fd = fd};

			return epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
		}
		c->out_sent += (size_t)n;
	}
	c->out_used = c->out_sent = 0;
	return 0;
}

static void respond_to_all(struct connection *c)
{
	size_t at = 0;

	while (c->in_used - at >= 2) {
		size_t octets = (size_t)c->in[at] << 8 | c->in[at + 1], size;

		if (c->in_used - at - 2 < octets || OUTPUT_OCTETS - c->out_used < octets + 66)
			break;
		size = respond(c->in + at + 2, octets, c->out + c->out_used + 2);
		if (size) {
			c->out[c->out_used] = (uint8_t)(size >> 8);
			c->out[c->out_used + 1] = (uint8_t)size;
			c->out_used += size + 2;
		}
		at += octets + 2;
	}
	memmove(c->in, c->in + at, c->in_used - at);
	c->in_used -= at;
}

static void serve_tcp(int fd, uint32_t events)
{
	struct connection *c = connections[fd];
	ssize_t n;

	if (events & EPOLLOUT) {
		struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

		if (flush(fd, c) != 0)
			close_connection(fd);
		else if (c->out_used == 0)
			epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
		return;
	}
	n = recv(fd, c->in + c->in_used, INPUT_OCTETS - c->in_used, 0);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0) {
		c->in_used += (size_t)n;
		respond_to_all(c);
	}
	if (n <= 0 || c->in_used == INPUT_OCTETS || flush(fd, c) != 0)
		close_connection(fd);
}

static void watch(int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
		die("epoll_ctl");
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS];
	struct sockaddr_in address;
	int udp, listener;

	if (argc < 3) {
		fprintf(stderr, "usage: upstream ADDRESS:PORT ZONE [CORE]\n");
		return 2;
	}
	address = parse_address(argv[1]);
	set_zone(argv[2]);
	pin_to_core(argc > 3 ? atoi(argv[3]) : -1);
	udp = bound_socket(SOCK_DGRAM, &address);
	listener = bound_socket(SOCK_STREAM, &address);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll < 0 || listen(listener, 512) != 0)
		die("listen");
	watch(udp);
	watch(listener);
	for (;;) {
		int count = epoll_wait(epoll, events, EVENTS, -1);

		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;

			if (fd == udp)
				serve_udp(fd);
			else if (fd == listener)
				accept_all(fd);
			else
				serve_tcp(fd, events[i].events);
		}
	}
}
