# A client in Perl: get.pl get URL... | get.pl put FILE URL
#
# LWP takes the proxy from http_proxy and https_proxy. CA is the file of the authority.
use strict;
use warnings;
use LWP::UserAgent;

my ($action, @rest) = @ARGV;
my $agent = LWP::UserAgent->new(env_proxy => 1, keep_alive => 1, ssl_opts => {SSL_ca_file => $ENV{CA}});
my $body;
if ($action eq "put") {
    open my $file, "<:raw", shift @rest or die $!;
    local $/;
    $body = <$file>;
}
binmode STDOUT;
for my $url (@rest) {
    my $response = defined $body ? $agent->put($url, Content => $body) : $agent->get($url);
    die $response->status_line, "\n" unless $response->is_success;
    print $response->content;
}
