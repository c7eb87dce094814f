// A real OpenID provider for the tests: clients get signed access tokens for the audience `tenantry` (client credentials).
// The port is free to choose, and the first line on standard output is the issuer's address. POST /test/rotate exchanges its
// keys; POST /test/stop ends it.
import { createServer } from 'node:http';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

// Who there is: the client's id says what its tokens claim.
const people = {
  deployer: { tenant: 'acme', groups: ['ml-engineers'] },
  reader: { tenant: 'acme', groups: ['everybody'] },
  stranger: { tenant: 'nobody', groups: ['ml-engineers'] },
  globex: { tenant: 'globex', groups: ['ml-engineers'] },
  root: { tenant: 'platform', groups: ['platform_admin'] },
};

let generation = 0;
async function keys() {
  generation += 1;
  const made = [];
  for (const alg of ['RS256', 'ES256', 'EdDSA']) {
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    made.push({ ...(await exportJWK(privateKey)), alg, use: 'sig', kid: `${alg}-${generation}` });
  }
  return { keys: made };
}

async function provider(issuer) {
  const client = (name, alg) => ({
    client_id: name,
    client_secret: `${name}-secret`,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    id_token_signed_response_alg: alg,
  });
  const made = new Provider(issuer, {
    jwks: await keys(),
    clients: Object.keys(people).map((name) => client(name, 'RS256')),
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:tenantry',
        getResourceServerInfo: (_, resource) => ({
          scope: '',
          // The resource's last word chooses how its tokens are signed.
          audience: resource.startsWith('urn:tenantry') ? 'tenantry' : 'another',
          accessTokenTTL: 300,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: resource.split(':')[2] ?? 'RS256' } },
        }),
      },
    },
    extraTokenClaims: (_, token) => people[token.clientId],
  });
  return made.callback();
}

let answer = (_, response) => response.end();
const server = createServer((request, response) => {
  if (request.url === '/test/rotate') {
    provider(issuer).then((next) => {
      answer = next;
      response.end();
    });
  } else if (request.url === '/test/stop') {
    response.end(() => process.exit(0));
  } else {
    answer(request, response);
  }
});
server.listen(0, '127.0.0.1');
await new Promise((listening) => server.once('listening', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;
answer = await provider(issuer);
console.log(issuer);
