/*
 * The load: asks A questions over UDP, checks each reply, prints one line of JSON.
 *
 * A query is "in flight" in a slot; a slot belongs to one of several connected sockets. Its message
 * ID is the slot's number and a generation, so a late or doubled reply is recognised as stray. No
 * reply in 200 ms counts as lost and the query is sent again. Everything is bounded: sockets, slots,
 * seconds. Modes:
 *
 *   warm      each of COUNT names, PASSES times; failed answers are asked again
 *   saturate  COUNT names round and round for SECONDS; never sleeps, so the server never has to
 *             wake it and finds its next queries waiting
 *   unique    names never asked before, for SECONDS; sleeps while nothing arrives, because the
 *             upstream usually lives on the same core
 *   single    one query at a time for SECONDS, with blocking calls, as a stub resolver does
 */
#define _GNU_SOURCE
#include "common.h"

#include <getopt.h>
#include <sys/epoll.h>
#include <sys/random.h>

enum {
	SOCKETS = 64,
	WINDOW = 256, /* eight bits of the message ID */
	NAMES = 100000,
	RECEIVE_OCTETS = 4 << 20,
	OPT_OCTETS = 11,
	SUB_BUCKETS = 256, /* of each power of two: percentiles are exact to 0.4 per cent */
	BUCKETS = 40 * SUB_BUCKETS,
};

#define LOST_AFTER_NS 200000000u
#define SCAN_EVERY_NS 20000000u

enum mode { WARM, SATURATE, UNIQUE, SINGLE };

static const char *const mode_names[] = {"warm", "saturate", "unique", "single"};

static struct {
	enum mode mode;
	struct sockaddr_in to;
	const char *prefix, *zone;
	unsigned count, passes, sockets, window;
	double seconds;
	int core, edns;
} settings = {
	.prefix = "n", .zone = "bench.cluster.local", .count = 1000, .passes = 2,
	.sockets = 4, .window = 32, .seconds = 3, .core = -1,
};

struct slot {
	uint64_t sent_at;
	uint16_t octets, generation;
	uint8_t waits;
	uint8_t query[QUERY_OCTETS];
};

struct lane {
	int fd;
	struct slot slots[WINDOW];
};

static struct lane *lanes;
static uint8_t (*names)[QUERY_OCTETS]; /* ready queries, ID 0 */
static uint16_t *name_octets;
static char unique_prefix[16];
static uint64_t asked, started_at, stopped_at;
static uint64_t answered, sent, lost, stray, failed;
static uint64_t histogram[BUCKETS], slowest;

static unsigned bucket_of(uint64_t ns)
{
	unsigned shift = 0;

	while (ns >> shift >= 2 * SUB_BUCKETS)
		shift++;
	return shift * SUB_BUCKETS + (unsigned)(ns >> shift);
}

static void record(uint64_t ns)
{
	unsigned bucket = bucket_of(ns);

	histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
	if (ns > slowest)
		slowest = ns;
}

/* Returns the latency in microseconds that `share` of all answers did not exceed. */
static double percentile(double share)
{
	uint64_t seen = 0, wanted = (uint64_t)(share * (double)answered);

	for (unsigned i = 0; i < BUCKETS; i++) {
		unsigned shift = i < 2 * SUB_BUCKETS ? 0 : i / SUB_BUCKETS - 1;

		seen += histogram[i];
		if (seen > wanted)
			return (double)((uint64_t)(i - shift * SUB_BUCKETS) << shift) / 1e3;
	}
	return (double)slowest / 1e3;
}

static uint8_t *append_label(uint8_t *end, const char *text, size_t octets)
{
	*end = (uint8_t)octets;
	memcpy(end + 1, text, octets);
	return end + 1 + octets;
}

/* Composes the query for first label `label` under the zone; returns its size in octets. */
static uint16_t compose(uint8_t *query, const char *label)
{
	static const uint8_t header[HEADER_OCTETS] = {0, 0, 1, 0, 0, 1};
	static const uint8_t opt[OPT_OCTETS] = {0, 0, 41, 4, 208};
	uint8_t *end = query + HEADER_OCTETS;

	memcpy(query, header, HEADER_OCTETS);
	end = append_label(end, label, strlen(label));
	for (const char *at = settings.zone; *at;) {
		size_t octets = strcspn(at, ".");

		end = append_label(end, at, octets);
		at += octets + (at[octets] == '.');
	}
	memcpy(end, "\0\0\1\0\1", 5); /* root, A, IN */
	end += 5;
	if (settings.edns) {
		query[11] = 1;
		memcpy(end, opt, OPT_OCTETS);
		end += OPT_OCTETS;
	}
	return (uint16_t)(end - query);
}

static void prepare_names(void)
{
	unsigned run = 0;
	char label[64];

	if (getrandom(&run, sizeof(run), 0) != sizeof(run))
		die("getrandom");
	snprintf(unique_prefix, sizeof(unique_prefix), "u%08x", run);
	names = calloc(settings.count, sizeof(*names));
	name_octets = calloc(settings.count, sizeof(*name_octets));
	lanes = calloc(settings.sockets, sizeof(*lanes));
	if (!names || !name_octets || !lanes)
		die("calloc");
	for (unsigned i = 0; i < settings.count; i++) {
		snprintf(label, sizeof(label), "%.40s%u", settings.prefix, i);
		name_octets[i] = compose(names[i], label);
	}
}

static void open_lanes(void)
{
	int octets = RECEIVE_OCTETS;

	for (unsigned i = 0; i < settings.sockets; i++) {
		int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

		if (fd < 0 ||
		    connect(fd, (struct sockaddr *)&settings.to, sizeof(settings.to)) != 0)
			die("connect");
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &octets, sizeof(octets));
		lanes[i].fd = fd;
	}
}

/* Puts the next question into the slot, under a new ID; returns 0 when all have been asked. */
static int next_question(struct slot *slot, unsigned number)
{
	char label[64];

	if (settings.mode == WARM && asked >= (uint64_t)settings.count * settings.passes)
		return 0;
	if (settings.mode == UNIQUE) {
		snprintf(label, sizeof(label), "%s-%llu", unique_prefix, (unsigned long long)asked);
		slot->octets = compose(slot->query, label);
	} else {
		unsigned name = (unsigned)(asked % settings.count);

		slot->octets = name_octets[name];
		memcpy(slot->query, names[name], name_octets[name]);
	}
	asked++;
	slot->generation++;
	slot->query[0] = (uint8_t)slot->generation;
	slot->query[1] = (uint8_t)number;
	slot->waits = 1;
	return 1;
}

/* Sends the slots' queries; what the kernel refuses is found again by rescue() as lost. */
static void send_slots(struct lane *lane, const unsigned *numbers, unsigned count, uint64_t now)
{
	struct iovec parts[BATCH];
	struct mmsghdr out[BATCH];
	unsigned done = 0, errors = 0;

	for (unsigned i = 0; i < count; i++) {
		struct slot *slot = &lane->slots[numbers[i]];

		slot->sent_at = now;
		parts[i] = (struct iovec){slot->query, slot->octets};
		out[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
	}
	while (done < count && errors < 4) {
		int n = sendmmsg(lane->fd, out + done, count - done, MSG_DONTWAIT);

		if (n > 0)
			done += (unsigned)n;
		else
			errors++; /* a pending ICMP error is reported once, then sending goes on */
	}
	sent += done;
}

/* Returns whether a reply with the slot's ID is the answer: same question, NOERROR, a record. */
static int is_answer(const uint8_t *reply, size_t octets, const struct slot *slot)
{
	size_t end = slot->octets - (settings.edns ? OPT_OCTETS : 0);

	return octets > end && (reply[2] & 0x80) && (reply[3] & 0x0f) == 0 &&
	       (reply[6] | reply[7]) != 0 &&
	       memcmp(reply + HEADER_OCTETS, slot->query + HEADER_OCTETS, end - HEADER_OCTETS) == 0;
}

/* Takes one reply; returns the slot's number if it is free for a new question, or -1. */
static int take_reply(struct lane *lane, const uint8_t *reply, size_t octets, uint64_t now)
{
	unsigned number = octets >= HEADER_OCTETS ? reply[1] : WINDOW;
	struct slot *slot;

	if (number >= settings.window)
		goto strange;
	slot = &lane->slots[number];
	if (!slot->waits || reply[0] != (uint8_t)slot->generation)
		goto strange;
	if (is_answer(reply, octets, slot)) {
		answered++;
		record(now - slot->sent_at);
	} else {
		failed++;
		if (settings.mode == WARM)
			return -1; /* asked again by rescue() */
	}
	slot->waits = 0;
	return (int)number;
strange:
	stray++;
	return -1;
}

/* Takes what has arrived on the lane and asks as much again; returns the number of datagrams. */
static int turn(struct lane *lane, int more)
{
	static uint8_t replies[BATCH][MESSAGE_OCTETS];
	static struct iovec parts[BATCH];
	static struct mmsghdr in[BATCH];
	unsigned numbers[BATCH], ready = 0;
	uint64_t now;
	int count;

	if (!parts[0].iov_base)
		for (int i = 0; i < BATCH; i++) {
			parts[i] = (struct iovec){replies[i], MESSAGE_OCTETS};
			in[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
		}
	count = recvmmsg(lane->fd, in, BATCH, MSG_DONTWAIT, NULL);
	if (count <= 0)
		return 0;
	now = now_ns();
	for (int i = 0; i < count; i++) {
		int number = take_reply(lane, replies[i], in[i].msg_len, now);

		if (number >= 0 && more &&
		    next_question(&lane->slots[number], (unsigned)number))
			numbers[ready++] = (unsigned)number;
	}
	if (ready)
		send_slots(lane, numbers, ready, now);
	return count;
}

/* Sends queries again that had no reply for 200 ms; returns how many slots still wait. */
static unsigned rescue(uint64_t now)
{
	unsigned waiting = 0;

	for (unsigned i = 0; i < settings.sockets; i++)
		for (unsigned number = 0; number < settings.window; number++) {
			struct slot *slot = &lanes[i].slots[number];

			if (!slot->waits)
				continue;
			waiting++;
			if (now < slot->sent_at + LOST_AFTER_NS) /* sent_at may be the later one */
				continue;
			lost++;
			send_slots(&lanes[i], &number, 1, now);
		}
	return waiting;
}

static void fill_window(void)
{
	uint64_t now = now_ns();

	for (unsigned number = 0; number < settings.window; number++)
		for (unsigned i = 0; i < settings.sockets; i++)
			if (next_question(&lanes[i].slots[number], number))
				send_slots(&lanes[i], &number, 1, now);
}

static int open_epoll(void)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	if (epoll < 0)
		die("epoll_create1");
	for (unsigned i = 0; i < settings.sockets; i++) {
		struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};

		if (epoll_ctl(epoll, EPOLL_CTL_ADD, lanes[i].fd, &event) != 0)
			die("epoll_ctl");
	}
	return epoll;
}

/* Keeps all slots busy until the time is over, or in mode warm until all names are answered. */
static void run_many(void)
{
	struct epoll_event events[SOCKETS];
	int epoll = open_epoll();
	uint64_t end, scan_at, now;
	unsigned waiting = 1;

	started_at = now_ns();
	end = started_at + (uint64_t)(settings.seconds * 1e9);
	scan_at = started_at + SCAN_EVERY_NS;
	fill_window();
	for (now = started_at; now < end && waiting; now = now_ns()) {
		if (settings.mode == SATURATE) {
			for (unsigned i = 0; i < settings.sockets; i++)
				turn(&lanes[i], 1);
		} else {
			int count = epoll_wait(epoll, events, SOCKETS, 20);

			for (int i = 0; i < count; i++)
				turn(&lanes[events[i].data.u32], 1);
		}
		if (now >= scan_at) {
			waiting = rescue(now);
			scan_at = now + SCAN_EVERY_NS;
		}
	}
	stopped_at = now;
}

static void run_single(void)
{
	struct timeval patience = {.tv_usec = LOST_AFTER_NS / 1000};
	struct lane *lane = &lanes[0];
	struct slot *slot = &lane->slots[0];
	uint8_t reply[MESSAGE_OCTETS];
	uint64_t end, now;

	setsockopt(lane->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	started_at = now = now_ns();
	end = started_at + (uint64_t)(settings.seconds * 1e9);
	while (now < end) {
		next_question(slot, 0);
		slot->sent_at = now_ns();
		if (send(lane->fd, slot->query, slot->octets, 0) > 0)
			sent++;
		while (slot->waits) {
			ssize_t octets = recv(lane->fd, reply, sizeof(reply), 0);

			if (octets < 0) {
				lost++;
				slot->waits = 0;
			} else {
				take_reply(lane, reply, (size_t)octets, now_ns());
			}
		}
		now = now_ns();
	}
	stopped_at = now;
}

static void print_result(void)
{
	double seconds = (double)(stopped_at - started_at) / 1e9;

	printf("{\"mode\": \"%s\", \"queries\": %llu, \"sent\": %llu, \"seconds\": %.6f, "
	       "\"qps\": %.1f, \"lost\": %llu, \"stray\": %llu, \"failed\": %llu, "
	       "\"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f}\n",
	       mode_names[settings.mode], (unsigned long long)answered, (unsigned long long)sent,
	       seconds, (double)answered / seconds, (unsigned long long)lost,
	       (unsigned long long)stray, (unsigned long long)failed, percentile(0.50),
	       percentile(0.90), percentile(0.99), (double)slowest / 1e3);
}

static void usage(void)
{
	fprintf(stderr,
		"usage: load warm|saturate|unique|single --to ADDRESS:PORT\n"
		"            [--prefix TEXT] [--zone NAME] [--count NAMES] [--passes NUMBER] [--edns]\n"
		"            [--sockets 1..%d] [--window 1..%d] [--seconds NUMBER] [--core NUMBER]\n",
		SOCKETS, WINDOW);
	exit(2);
}

static unsigned bounded(const char *text, long most)
{
	long value = strtol(text, NULL, 10);

	if (value < 1 || value > most)
		usage();
	return (unsigned)value;
}

static void parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{"to", 1, NULL, 't'}, {"prefix", 1, NULL, 'p'}, {"zone", 1, NULL, 'z'},
		{"count", 1, NULL, 'n'}, {"passes", 1, NULL, 'r'}, {"sockets", 1, NULL, 's'},
		{"window", 1, NULL, 'w'}, {"seconds", 1, NULL, 'd'}, {"core", 1, NULL, 'c'},
		{"edns", 0, NULL, 'e'}, {NULL, 0, NULL, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (option) {
		case 't': settings.to = parse_address(optarg); break;
		case 'p': settings.prefix = optarg; break;
		case 'z': settings.zone = optarg; break;
		case 'n': settings.count = bounded(optarg, NAMES); break;
		case 'r': settings.passes = bounded(optarg, 1000); break;
		case 's': settings.sockets = bounded(optarg, SOCKETS); break;
		case 'w': settings.window = bounded(optarg, WINDOW); break;
		case 'd': settings.seconds = atof(optarg); break;
		case 'c': settings.core = atoi(optarg); break;
		case 'e': settings.edns = 1; break;
		default: usage();
		}
	if (optind != argc - 1 || !settings.to.sin_port || strlen(settings.zone) > 180 ||
	    settings.seconds <= 0 || settings.seconds > 600)
		usage();
	for (settings.mode = WARM; settings.mode <= SINGLE; settings.mode++)
		if (strcmp(argv[optind], mode_names[settings.mode]) == 0)
			return;
	usage();
}

int main(int argc, char **argv)
{
	parse_options(argc, argv);
	pin_to_core(settings.core);
	prepare_names();
	open_lanes();
	if (settings.mode == SINGLE)
		run_single();
	else
		run_many();
	print_result();
	return answered ? 0 : 1;
}
